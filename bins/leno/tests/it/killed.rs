//! A mesh after one that was killed: what that left is no obstacle and does not stay.

use std::fs;

use crate::rig::{SHOP, Up, eventually, get, signal, stderr};

#[test]
fn a_mesh_that_was_killed_leaves_its_place_to_the_next() {
    killed_and_started_again(&[]);
}

#[test]
fn the_processes_of_a_mesh_that_was_killed_are_ended_by_the_next() {
    killed_and_started_again(&["--processes"]);
}

fn killed_and_started_again(form: &[&str]) {
    let mesh = Up::of(SHOP, form);
    let folders = || {
        let entries = fs::read_dir(mesh.folder.path().join("runtime")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("mesh-")).collect::<Vec<_>>()
    };
    let left = folders();
    assert_eq!(left.len(), 1, "{left:?}");
    let manifests = mesh.folder.path().join("manifests").display().to_string();
    let beside = mesh.leno(&["up", "-f", &manifests]);
    assert_eq!(beside.status.code(), Some(2), "{beside:?}");
    assert!(stderr(&beside).contains("a mesh runs already"), "{beside:?}");
    assert_eq!(folders(), left, "and keeps its files");

    let killed = mesh.record().unwrap().pid;
    mesh.kill();
    let status = eventually("it is known to have ended", || {
        let status = mesh.leno(&["status"]);
        stderr(&status).contains("has ended").then_some(status)
    });
    assert_eq!(status.status.code(), Some(3), "{status:?}");

    let before = mesh.processes("");
    let mut next = mesh.spawn(&[&["up", "-f", &manifests], form].concat());
    eventually("the next mesh has the record", || {
        mesh.record().filter(|record| record.pid == next.id() && record.pid != killed)
    });
    // Its gateway may be ready before the servers' proxies are.
    eventually("the next mesh serves", || {
        get(mesh.edge(), "/").contains("\"service\":\"web\"").then_some(())
    });
    let now = folders();
    assert!(now.len() == 1 && now != left, "{left:?} is swept: {now:?}");
    let now = mesh.processes("");
    assert!(!before.iter().any(|process| now.contains(process)), "{before:?} are ended: {now:?}");
    assert_eq!(before.is_empty(), form.is_empty(), "{before:?}");
    signal("INT", &next.id().to_string());
    assert!(next.wait().unwrap().success());
    assert!(folders().is_empty(), "nothing is left: {:?}", folders());
}
