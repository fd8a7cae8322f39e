//! The CNI plugin: `leno_cni` decides, and this asks the node's agent where that is needed.
//!
//! Invariant: it always ends, and what it prints is what the CNI specification has for it: the result of the plugins before it, or an error.

#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{self, IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use leno_cni::{Answer, Call, Command, Decision, Failure, LONGEST_QUESTION, Question, RETRY_LATER, decide};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with, sockopt,
};
use serde_json::Value;

/// Longest answer.
const LONGEST_ANSWER: u64 = 64 << 10;
/// Until the agent has taken a question, and until it has answered: it gives up on the rules after 10 s itself.
const TAKEN: Duration = Duration::from_secs(5);
const ANSWERED: Duration = Duration::from_secs(15);
/// The same for what is told only, which holds up pods of nobody's mesh.
const TOLD: Duration = Duration::from_secs(1);

/// What is printed for a call, and whether it went well.
pub fn run(environment: impl Fn(&str) -> Option<String>, input: &str) -> (Option<Value>, bool) {
    let version = version_of(input);
    if environment("CNI_COMMAND").as_deref() == Some("VERSION") {
        return (Some(leno_cni::versions(&version)), true);
    }
    match answer(environment, input) {
        Ok(printed) => (printed, true),
        Err(failure) => (Some(failure.to_json(&version)), false),
    }
}

fn version_of(input: &str) -> String {
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    input["cniVersion"].as_str().unwrap_or("1.0.0").to_owned()
}

/// What is printed: a result for ADD, nothing for all else.
fn answer(environment: impl Fn(&str) -> Option<String>, input: &str) -> Result<Option<Value>, Failure> {
    let call = leno_cni::read(environment, input)?;
    let result = match call.command {
        Command::Add => Some(call.result()?.clone()),
        _ => None,
    };
    match decide(&call) {
        Decision::Pass => {}
        // Whether it arrives is for the agent's log only.
        Decision::Tell(question) => drop(ask(&call, &question, TOLD)),
        Decision::Ask(question) => match ask(&call, &question, ANSWERED) {
            Ok(Answer::Done) => {}
            Ok(Answer::Failed(why)) => {
                let message = format!("leno cannot capture the traffic of pod {}", question.pod);
                return Err(Failure { code: 100, message, details: why });
            }
            Err(error) => {
                let message = format!(
                    "leno's agent on this node, which has to capture the traffic of pod {}, does not answer at {}",
                    question.pod, call.entry.socket
                );
                return Err(failure(RETRY_LATER, &message, &error));
            }
        },
    }
    Ok(result)
}

fn failure(code: u32, message: &str, error: &io::Error) -> Failure {
    Failure { code, message: message.to_owned(), details: error.to_string() }
}

/// Asks the agent; the container's network namespace goes along as an open file.
fn ask(call: &Call, question: &Question, patience: Duration) -> io::Result<Answer> {
    let text = serde_json::to_vec(question)?;
    if text.len() > LONGEST_QUESTION {
        return Ok(Answer::Failed(format!("its annotation has {} bytes", question.capture.len())));
    }
    let netns = call.netns.as_ref().ok_or_else(|| io::Error::other("CNI_NETNS is not set"))?;
    let netns = File::open(netns)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience.min(TAKEN)))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience))?;
    connect(&socket, &SocketAddrUnix::new(&call.entry.socket)?)?;
    let files = [netns.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    along.push(SendAncillaryMessage::ScmRights(&files));
    let sent = sendmsg(&socket, &[IoSlice::new(&text)], &mut along, SendFlags::NOSIGNAL)?;
    let mut stream = UnixStream::from(socket);
    stream.write_all(&text[sent..])?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut said)?;
    if said.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&said)?)
}
