//! Rules in a pod's network namespace.
//!
//! Invariant: never in the node's own.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    thread,
};

use leno_capture::{
    arguments::{self, NoPlan},
    render,
    write::{self, NotWritten},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

/// Why a pod is not captured.
#[derive(Debug, Error)]
pub(crate) enum NotCaptured {
    #[error("annotation {}", leno_cni::CAPTURE_ANNOTATION)]
    Annotation(#[from] NoPlan),
    #[error("it has the node's own network namespace")]
    Node,
    #[error("its network namespace cannot be entered (the agent needs SYS_ADMIN)")]
    Enter(#[source] io::Error),
    #[error("the rules are not in force")]
    Rules(#[from] NotWritten),
    #[error("the thread in its network namespace has died")]
    Died,
}

/// Writes the rules that a capture annotation asks for.
pub(crate) fn capture(netns: File, annotation: &str) -> Result<(), NotCaptured> {
    let rules = render(&arguments::read(annotation)?);
    inside(netns, move || write::write(&rules))
}

/// Whether there are rules.
pub(crate) fn verify(netns: File) -> Result<(), NotCaptured> {
    inside(netns, write::verify)
}

/// Runs on a thread of its own, which ends with it: no other thread ever is in the pod's namespace.
fn inside(
    netns: File,
    run: impl FnOnce() -> Result<(), NotWritten> + Send + 'static,
) -> Result<(), NotCaptured> {
    let own = fs::metadata("/proc/self/ns/net").map_err(NotCaptured::Enter)?;
    let its = netns.metadata().map_err(NotCaptured::Enter)?;
    if (own.dev(), own.ino()) == (its.dev(), its.ino()) {
        return Err(NotCaptured::Node);
    }
    let thread = thread::spawn(move || -> Result<(), NotCaptured> {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| NotCaptured::Enter(error.into()))?;
        Ok(run()?)
    });
    thread.join().unwrap_or(Err(NotCaptured::Died))
}
