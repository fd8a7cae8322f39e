//! What files say, over changes and mishaps.

use std::{fs, os::unix::fs::symlink};

use super::*;

const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
const OTHER: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";

fn folder() -> (tempfile::TempDir, FileSource) {
    let folder = tempfile::tempdir().unwrap();
    let source = FileSource::new([folder.path().to_owned()]);
    (folder, source)
}

fn names(reading: &Reading) -> Vec<&str> {
    reading.objects.keys().map(|name| &*name.name).collect()
}

#[test]
fn an_unchanged_folder_is_not_read_twice() {
    let (folder, mut source) = folder();
    fs::write(folder.path().join("a.yaml"), GOOD).unwrap();
    assert_eq!(names(&source.read().unwrap().unwrap()), ["a"]);
    assert!(source.read().unwrap().is_none());
}

#[test]
fn a_deleted_object_goes_and_a_broken_text_keeps_the_last_good_one() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("{GOOD}---\n{OTHER}")).unwrap();
    assert_eq!(names(&source.read().unwrap().unwrap()), ["a", "b"]);

    fs::write(&file, format!("{GOOD}---\nkind: [\n")).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(names(&reading), ["a", "b"], "a text that cannot be read deletes nothing");
    assert_eq!(reading.kept.len(), 1);
    assert!(!reading.diagnostics.is_empty());

    fs::write(&file, GOOD).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(names(&reading), ["a"]);
    assert!(reading.kept.is_empty());
}

#[test]
fn an_object_that_becomes_invalid_stays_in_its_last_good_form() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, GOOD).unwrap();
    let good = source.read().unwrap().unwrap();
    fs::write(&file, GOOD.replace("80", "eighty")).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(reading.objects, good.objects);
    assert_eq!(reading.kept.len(), 1);
}

#[test]
fn a_mistake_deep_inside_an_object_keeps_its_last_good_form() {
    let filtered = |filter: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: a}}\nspec:\n  rules:\n  \
             - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {filter}}}]\n"
        )
    };
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, filtered("7")).unwrap();
    let broken_from_the_start = source.read().unwrap().unwrap();
    assert!(broken_from_the_start.kept.is_empty(), "there is no better form of it");
    fs::write(&file, filtered("{remove: [x-a]}")).unwrap();
    let good = source.read().unwrap().unwrap();
    assert_eq!(problems(&good), [""; 0]);
    for broken in ["7", "{remove: 7}", "{removed: [x-a]}"] {
        fs::write(&file, filtered(broken)).unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(reading.objects, good.objects, "{broken}");
        assert_eq!(reading.kept.len(), 1, "{broken}");
        let said = problems(&reading).join("\n");
        assert!(said.contains("a.yaml:6:"), "{said}");
        assert!(reading.diagnostics.iter().all(|said| said.effect.is_none()), "nothing of it is withheld");
    }
}

#[test]
fn a_misspelt_kind_group_or_namespace_takes_nothing_out_of_force() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\nspec: {}\n";
    fs::write(&file, policy).unwrap();
    let good = source.read().unwrap().unwrap();
    for (written, misspelt) in [
        ("AuthorizationPolicy", "AuthorisationPolicy"),
        ("security.", "securty."),
        ("namespace:", "namespce:"),
    ] {
        fs::write(&file, policy.replace(written, misspelt)).unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(reading.objects, good.objects, "{misspelt}");
        assert_eq!((reading.kept.len(), reading.diagnostics.len()), (1, 1), "{misspelt}");
    }
}

#[test]
fn of_two_objects_with_one_name_the_first_file_counts() {
    let (folder, mut source) = folder();
    fs::write(folder.path().join("1.yaml"), GOOD).unwrap();
    fs::write(folder.path().join("2.yaml"), GOOD).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(reading.objects.len(), 1);
    assert_eq!(reading.diagnostics.len(), 1);
}

#[test]
fn a_path_that_is_not_there_is_an_error_and_not_an_empty_world() {
    let (folder, mut source) = folder();
    assert!(matches!(source.read(), Err(SourceError::Nothing { .. })));
    fs::write(folder.path().join("a.yaml"), GOOD).unwrap();
    source.read().unwrap();
    drop(folder);
    assert!(matches!(source.read(), Err(SourceError::Unreadable { .. })));
}

fn problems(reading: &Reading) -> Vec<String> {
    reading.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn of_two_objects_with_one_name_in_one_file_the_first_counts_and_it_is_said() {
    let (folder, mut source) = folder();
    fs::write(folder.path().join("a.yaml"), format!("{GOOD}---\n{}", GOOD.replace("80", "81"))).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(reading.objects.len(), 1);
    let problems = problems(&reading);
    assert!(matches!(&*problems, [one] if one.contains("LN0110") && one.contains(":6:")), "{problems:?}");
}

#[test]
fn a_file_that_is_empty_for_a_moment_deletes_nothing() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, GOOD).unwrap();
    fs::write(folder.path().join("new.yaml"), "").unwrap();
    let good = source.read().unwrap().unwrap();
    assert!(good.diagnostics.is_empty(), "a file that never said anything is nobody's concern");
    fs::write(&file, "\n").unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(reading.objects, good.objects);
    assert_eq!((reading.kept.len(), reading.diagnostics.len()), (1, 1));
    fs::write(&file, "# nothing any more\n---\n").unwrap();
    assert!(source.read().unwrap().unwrap().objects.is_empty(), "a text that parses does delete");
    fs::write(&file, GOOD).unwrap();
    source.read().unwrap().unwrap();
    fs::remove_file(&file).unwrap();
    assert!(source.read().unwrap().unwrap().objects.is_empty(), "so does deleting the file");
}

#[test]
fn bytes_that_are_no_text_keep_the_last_good_form_and_are_said_with_their_place() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, GOOD).unwrap();
    let good = source.read().unwrap().unwrap();
    fs::write(&file, [GOOD.as_bytes(), b"---\nname: \xff\n"].concat()).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(reading.objects, good.objects);
    let problems = problems(&reading);
    assert!(matches!(&*problems, [one] if one.contains("line 6")), "{problems:?}");
}

#[test]
fn one_file_that_cannot_be_read_does_not_hide_the_changes_of_the_others() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, GOOD).unwrap();
    source.read().unwrap().unwrap();
    fs::remove_file(&file).unwrap();
    symlink("nowhere.yaml", &file).unwrap();
    symlink("nowhere", folder.path().join("notes")).unwrap();
    fs::write(folder.path().join("b.yaml"), OTHER).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(names(&reading), ["a", "b"]);
    assert_eq!(reading.kept.len(), 1);
    assert!(problems(&reading)[0].contains("cannot be read"), "{:?}", problems(&reading));
}

#[test]
fn a_link_that_leads_round_in_a_circle_is_not_followed() {
    let (folder, mut source) = folder();
    fs::write(folder.path().join("a.yaml"), GOOD).unwrap();
    for name in ["once", "twice"] {
        symlink(".", folder.path().join(name)).unwrap();
    }
    let reading = source.read().unwrap().unwrap();
    assert!(reading.diagnostics.is_empty(), "{:?}", problems(&reading));
}

#[test]
fn a_pipe_is_read_once_and_one_in_a_folder_holds_nobody_up() {
    let (folder, _) = folder();
    let pipe = folder.path().join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut whole = FileSource::new([folder.path().to_owned()]);
    assert!(problems(&whole.read().unwrap().unwrap())[0].contains("no regular file"));
    let mut given = FileSource::new([pipe.clone()]);
    let writer = std::thread::spawn(move || fs::write(pipe, GOOD).unwrap());
    assert_eq!(names(&given.read().unwrap().unwrap()), ["a"]);
    writer.join().unwrap();
    assert!(given.read().unwrap().is_none());
}

#[test]
fn a_file_that_is_too_large_is_said_and_not_read_in_part() {
    let (folder, mut source) = folder();
    let file = folder.path().join("a.yaml");
    fs::write(&file, GOOD).unwrap();
    let good = source.read().unwrap().unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(33 << 20).unwrap();
    let reading = source.read().unwrap().unwrap();
    assert_eq!(reading.objects, good.objects);
    assert!(problems(&reading)[0].contains("32 MiB"));
}
