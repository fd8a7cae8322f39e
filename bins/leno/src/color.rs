//! Colours, only where a terminal shows them.

use std::io::{self, IsTerminal as _};

/// Whether standard error shows colours.
pub(crate) fn on_stderr() -> bool {
    allowed() && io::stderr().is_terminal()
}

/// Whether standard output shows colours.
pub(crate) fn on_stdout() -> bool {
    allowed() && io::stdout().is_terminal()
}

fn allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Good news.
pub(crate) fn good(text: &str) -> String {
    paint("32", text)
}

/// Bad news.
pub(crate) fn bad(text: &str) -> String {
    paint("31", text)
}

fn paint(code: &str, text: &str) -> String {
    if on_stdout() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
