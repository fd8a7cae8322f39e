//! The images' files, collected as the Dockerfile does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::root;

/// Collects the files of a list, with `/bin/true` in the place of each of our programs.
fn collect(image: &str, into: &Path) -> Vec<PathBuf> {
    let bin = into.join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["leno-proxy", "leno-control", "leno-cni", "leno-cni-agent"] {
        fs::copy("/bin/true", bin.join(program)).unwrap();
    }
    let image_root = into.join("root");
    let images = root().join("deploy/images");
    let list = images.join(format!("{image}.files"));
    let collected = Command::new(images.join("collect")).args([&list, &bin, &image_root]).output().unwrap();
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    let list = fs::read_to_string(list).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| image_root.join(line.split_once(":/").unwrap().1)).collect()
}

#[test]
fn every_program_of_an_image_finds_its_libraries_in_it() {
    let of_the_proxy = &["leno-proxy", "leno-cni-agent", "leno-cni", "nft"][..];
    for (image, programs) in [("proxy", of_the_proxy), ("control", &["leno-control"])] {
        let folder = tempfile::tempdir().unwrap();
        let files = collect(image, folder.path());
        let (data, files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.ends_with("etc/ssl/certs/ca-certificates.crt"));
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, programs);
        // Without authorities no server outside the mesh can be verified.
        assert_eq!(data.len(), usize::from(image == "proxy"));
        for file in data {
            assert!(fs::read_to_string(file).unwrap().contains("-----BEGIN CERTIFICATE-----"));
        }
        for file in files {
            let output = Command::new("ldd").arg(&file).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let libraries: Vec<_> = text.split_whitespace().filter(|word| word.starts_with('/')).collect();
            assert!(libraries.len() >= 2, "{text}");
            for library in libraries {
                let copy = folder.path().join("root").join(&library[1..]);
                assert!(copy.is_file(), "{}: {library} is not in the image", file.display());
            }
        }
    }
}

#[test]
fn the_dockerfile_starts_what_the_lists_hold_as_the_users_that_pods_run_as() {
    let text = fs::read_to_string(root().join("deploy/images/Dockerfile")).unwrap();
    for line in [
        "ENTRYPOINT [\"/usr/bin/leno-proxy\"]",
        "USER 1337:1337",
        "ENTRYPOINT [\"/usr/bin/leno-control\"]",
        "USER 65532:65532",
        // On nodes there may be an older C library, or another.
        "RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --locked --profile dist --target \"$target\" -p leno-cni-bin",
    ] {
        assert!(text.contains(line), "{line}");
    }
}
