//! The terminal: whether there is one, its size, raw mode with restoration.

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::io::{stderr, stdin, stdout};
use std::os::fd::AsFd;

/// Says whether standard input is a terminal.
pub fn input_is_terminal() -> bool {
    termios::isatty(stdin())
}

/// Says whether standard output is a terminal.
pub fn output_is_terminal() -> bool {
    termios::isatty(stdout())
}

/// Says whether standard error is a terminal.
pub fn error_is_terminal() -> bool {
    termios::isatty(stderr())
}

/// Returns the size (rows, columns) of the terminal at standard output, (0, 0) if there is none.
pub fn size() -> (u16, u16) {
    termios::tcgetwinsize(stdout()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Returns the size of the terminal at standard error, (0, 0) if there is none.
pub fn error_size() -> (u16, u16) {
    termios::tcgetwinsize(stderr()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Returns the columns of the terminal at standard input, 80 if there is none: what help texts are wrapped at.
pub fn columns_of_input() -> usize {
    termios::tcgetwinsize(stdin()).map_or(80, |size| usize::from(size.ws_col))
}

/// Raw mode of the terminal at standard input, until dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Switches to raw mode; nothing happens without a terminal.
    pub fn enter() -> Option<Raw> {
        let before = termios::tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin().as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoration.
        let _ = termios::tcsetattr(stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

/// What is typed at standard input's terminal is not shown, until dropped.
pub struct Hidden {
    before: Termios,
}

impl Hidden {
    /// Hides what is typed; nothing happens without a terminal.
    pub fn enter() -> Option<Hidden> {
        let before = termios::tcgetattr(stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(stdin().as_fd(), OptionalActions::Now, &hidden).ok()?;
        Some(Hidden { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoration.
        let _ = termios::tcsetattr(stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}
