//! A terminal with a command in it, as a person at a keyboard has.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait::eventually_within;

/// A command that has a terminal of its own as standard input, output, error and controlling terminal.
pub struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    /// How much of `seen` the expectations have consumed.
    position: usize,
    line: String,
}

impl Terminal {
    /// Starts `command` in a terminal of `rows` by `columns`.
    pub fn start(words: &[String], rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("open a terminal");
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .expect("unlock a terminal");
        let path = ptsname(&master, Vec::new())
            .expect("name a terminal")
            .into_string()
            .expect("a plain name");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("open the terminal's other end");
        set_size(&master, rows, columns);
        // setsid makes the terminal the controlling one, without code of ours between fork and exec.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .args(words)
            .env("TERM", "xterm")
            .stdin(slave.try_clone().expect("duplicate"))
            .stdout(slave.try_clone().expect("duplicate"))
            .stderr(slave)
            .spawn()
            .expect("start setsid");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut reader = master.try_clone().expect("duplicate");
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock()
                    .expect("no panic while locked")
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Terminal {
            master,
            child,
            seen,
            position: 0,
            line: words.join(" "),
        }
    }

    /// Types `bytes`.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master
            .write_all(bytes)
            .expect("type into the terminal");
    }

    /// Waits until `text` appears after what was expected before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let seen = Arc::clone(&self.seen);
        let from = self.position;
        let find = || {
            let seen = seen.lock().expect("no panic while locked");
            let rest = &seen[from.min(seen.len())..];
            rest.windows(text.len())
                .position(|window| window == text.as_bytes())
        };
        for _ in 0..2000 {
            if let Some(offset) = find() {
                self.position = from + offset + text.len();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!(
            "`{}` never showed {text:?}; the terminal holds {:?}",
            self.line,
            self.screen()
        );
    }

    /// Everything that was shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no panic while locked")).into_owned()
    }

    /// Changes the size; the command gets SIGWINCH from the kernel.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// The pid of the command.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end and gives the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let line = format!(
            "`{}` ends; the terminal holds {:?}",
            self.line,
            self.screen()
        );
        let status = eventually_within(Duration::from_secs(30), &line, || {
            self.child.try_wait().expect("wait")
        });
        use std::os::unix::process::ExitStatusExt;
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Gone already in a scenario that went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("set the terminal's size");
}
