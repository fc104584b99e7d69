//! `system dial-stdio`: standard input and output joined to the daemon's socket, for ssh.

use crate::cli::Cli;
use crate::failure::Outcome;
use crate::interrupt;
use gantry_client::Hijacked;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Runs `system dial-stdio`.
pub async fn dial_stdio(cli: &Cli) -> Outcome {
    let stream = Arc::new(cli.client()?.dial().await?);
    let writer = stream.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0u8; 64 * 1024];
        let mut stdin = std::io::stdin().lock();
        while let Ok(length) = stdin.read(&mut buffer) {
            if length == 0 || write_all(&writer, &buffer[..length]).is_err() {
                break;
            }
        }
        Hijacked::close_write(writer.as_fd());
    });
    interrupt::blocking(move || {
        let mut buffer = vec![0u8; 64 * 1024];
        let mut stdout = std::io::stdout().lock();
        loop {
            match rustix::io::read(&*stream, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    stdout.write_all(&buffer[..length])?;
                    stdout.flush()?;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
    .await
}

fn write_all(stream: &impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
