//! The terminal: whether there is one, its size, raw mode with restoration.

use rustix::termios::{self, OptionalActions, Termios};
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
