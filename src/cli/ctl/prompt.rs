//! Passwords from the terminal, or from whatever standard input is.

use std::io::{Read, Write};

use rustix::termios::{self, LocalModes, OptionalActions};

use super::fail::{Exit, Failure};

/// What Ctrl-C sends while the terminal passes it on.
const INTERRUPT: u8 = 3;
/// What ends input at the start of a line.
const END: u8 = 4;
/// What Ctrl-U sends: the line begins anew.
const KILL: u8 = 21;
/// What the two kinds of backspace send.
const BACK: [u8; 2] = [8, 127];

/// Asks for a password: the prompt goes to standard output, and what is typed is not shown. Standard input need not be
/// a terminal.
pub fn password(prompt: &str) -> Result<String, Failure> {
    let io = |error: std::io::Error| Failure::args(format!("failed to ask password: {error}"));
    let mut out = std::io::stdout().lock();
    write!(out, "{prompt}").and_then(|()| out.flush()).map_err(io)?;
    let line = {
        let quiet = Quiet::begin();
        line(&mut std::io::stdin().lock(), quiet.is_some()).map_err(io)?
    };
    writeln!(out).map_err(io)?;
    line.ok_or_else(|| Failure::silent(Exit::Interrupted))
}

/// Asks for the new password of a user, twice.
pub fn new_password(user: &str) -> Result<String, Failure> {
    let first = password(&format!("Password of {user}: "))?;
    if first.is_empty() {
        return Err(Failure::args("empty password"));
    }
    if password(&format!("Type password of {user} again for confirmation: "))? != first {
        return Err(Failure::args("given passwords are different"));
    }
    Ok(first)
}

/// The first word of standard input's first line; empty if there is none.
pub fn piped_password() -> String {
    let line = line(&mut std::io::stdin().lock(), false).ok().flatten().unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Reads a line, byte by byte: what follows it is for who reads next. `edited` lines come from a terminal that does not
/// edit them itself; None if somebody broke off.
fn line(input: &mut impl Read, edited: bool) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        match byte[0] {
            b'\n' => break,
            b'\r' if edited => break,
            INTERRUPT if edited => return Ok(None),
            END if edited => break,
            KILL if edited => line.clear(),
            back if edited && BACK.contains(&back) => drop(line.pop()),
            other => line.push(other),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// A terminal that shows nothing and passes on each key, for as long as this is held. Ctrl-C is passed on, too:
/// ended by a signal, the process would leave the terminal like this.
struct Quiet(termios::Termios);

impl Quiet {
    fn begin() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &quiet).ok()?;
        Some(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to be put back to.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, edited: bool) -> Option<String> {
        line(&mut text.as_bytes(), edited).expect("bytes can be read")
    }

    #[test]
    fn a_line_is_all_that_is_taken() {
        let mut input = &b"one\ntwo\n"[..];
        assert_eq!(line(&mut input, false).expect("bytes").as_deref(), Some("one"));
        assert_eq!(input, b"two\n");
        assert_eq!(read("pw\r\n", false).as_deref(), Some("pw"));
        assert_eq!(read("", false).as_deref(), Some(""));
    }

    #[test]
    fn a_terminals_line_is_edited() {
        assert_eq!(read("px\x7fw\r", true).as_deref(), Some("pw"));
        assert_eq!(read("wrong\x15pw\n", true).as_deref(), Some("pw"));
        assert_eq!(read("\x7f\x7fpw\x04", true).as_deref(), Some("pw"));
        assert_eq!(read("pw\x03", true), None);
    }
}
