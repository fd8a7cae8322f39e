//! The socket at which the plugin asks.
//!
//! Invariants: only root can ask, which the container runtime is (by the socket's mode: who asks is in another pid namespace, for which
//! SO_PEERCRED has no name); questions are bounded in number, size and time.

use std::{
    fs::{self, File},
    io::{self, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use leno_cni::{Answer, LONGEST_QUESTION, Question, Wanted};
use rustix::{
    fs::Mode,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::umask,
};

use crate::{State, namespace};

/// Questions at once; others wait in the socket's queue.
const AT_ONCE: usize = 8;
/// Until a question has come, and until its answer is taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens, on threads that live as long as the process.
pub(crate) fn start(socket: &Path, state: &State) -> anyhow::Result<()> {
    let what = || format!("{} cannot be listened at", socket.display());
    match fs::remove_file(socket) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(what),
    }
    // No other thread makes files yet.
    let usual = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(socket);
    umask(usual);
    let listener = listener.with_context(what)?;
    let blind = Arc::new(AtomicBool::new(false));
    for _ in 0..AT_ONCE {
        let (listener, state, blind) = (listener.try_clone()?, state.clone(), blind.clone());
        thread::spawn(move || {
            loop {
                let served = listener.accept().and_then(|(stream, _)| serve(stream, &state, &blind));
                if let Err(error) = served {
                    tracing::warn!(%error, "a question was not answered");
                    // Out of files: no reason to turn in circles.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
    }
    Ok(())
}

fn serve(mut stream: UnixStream, state: &State, blind: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (question, netns) = receive(&mut stream)?;
    let answer = answer(&question, netns, state, blind);
    stream.write_all(&serde_json::to_vec(&answer)?)
}

/// A question, and the file that came with its first byte.
fn receive(stream: &mut UnixStream) -> io::Result<(Question, Option<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST_QUESTION];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let first = recvmsg(&*stream, &mut [IoSliceMut::new(&mut bytes)], &mut along, RecvFlags::CMSG_CLOEXEC)?;
    let file = along.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    bytes.truncate(first.bytes);
    let room = LONGEST_QUESTION.saturating_sub(bytes.len());
    stream.take(u64::try_from(room).unwrap_or(0)).read_to_end(&mut bytes)?;
    Ok((serde_json::from_slice(&bytes)?, file))
}

fn answer(question: &Question, netns: Option<OwnedFd>, state: &State, blind: &AtomicBool) -> Answer {
    let Question { wanted, pod, capture } = question;
    if *wanted == Wanted::Ready {
        return state.lock().clone().map_or(Answer::Done, Answer::Failed);
    }
    if *wanted == Wanted::Blind {
        if !blind.swap(true, Ordering::Relaxed) {
            tracing::error!(
                pod,
                "the container runtime does not tell pods' annotations, so nothing can be captured on this node; \
                 containerd tells them from 1.6 on"
            );
        }
        return Answer::Done;
    }
    let Some(netns) = netns.map(File::from) else {
        return Answer::Failed("no network namespace came with the question".to_owned());
    };
    let done = match wanted {
        Wanted::Capture => namespace::capture(netns, capture),
        Wanted::Verify | Wanted::Blind | Wanted::Ready => namespace::verify(netns),
    };
    match done {
        Ok(()) => {
            tracing::info!(pod, ?wanted, "done");
            Answer::Done
        }
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(pod, ?wanted, why, "not done");
            Answer::Failed(why)
        }
    }
}

/// Asks the agent of this node whether the plugin is in place.
pub(crate) fn ready(socket: &Path) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let question = Question { wanted: Wanted::Ready, pod: String::new(), capture: String::new() };
    stream.write_all(&serde_json::to_vec(&question)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = Vec::new();
    stream.take(1 << 16).read_to_end(&mut said)?;
    match serde_json::from_slice(&said)? {
        Answer::Done => Ok(()),
        Answer::Failed(why) => bail!(why),
    }
}
