//! Signals while a container is attached: they are passed on, and a changed window resizes its terminal.

use crate::interrupt::{self, Course};
use crate::terminal;
use gantry_client::request::Path;
use gantry_client::{Client, Query, Request};
use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are passed on, with the names that the API takes.
const FORWARDED: [(i32, &str); 15] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (26, "VTALRM"),
    (27, "PROF"),
    (29, "IO"),
    (30, "PWR"),
];

/// Runs a future while signals go to the container.
pub async fn forwarding<T>(
    client: &Client,
    id: &str,
    on: bool,
    work: impl Future<Output = T>,
) -> T {
    let _within = interrupt::within(Course::Pass);
    if !on {
        return work.await;
    }
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for (number, name) in FORWARDED {
        if let Ok(mut stream) = signal(SignalKind::from_raw(number)) {
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(name).is_ok() {}
            });
        }
    }
    let pass_on = async {
        while let Some(name) = receiver.recv().await {
            let query = Query::new().with("signal", name);
            // A container that is gone or not yet started takes no signal.
            let _ = client
                .call(Request::post(format!("/containers/{id}/kill")).query(query))
                .await;
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        () = async { pass_on.await; std::future::pending().await } => unreachable!("pending"),
    }
}

/// Runs a future while the terminal's size is kept equal to the window's.
pub async fn resizing<T>(
    client: &Client,
    path: &Path,
    on: bool,
    work: impl Future<Output = T>,
) -> T {
    if !on {
        return work.await;
    }
    tokio::select! {
        biased;
        result = work => result,
        () = follow_window(client, path) => unreachable!("following a window never ends"),
    }
}

async fn follow_window(client: &Client, path: &Path) {
    let mut changes: Option<Signal> = signal(SignalKind::window_change()).ok();
    let mut tries = 0;
    // The process may not have its terminal yet.
    while !resize(client, path).await && tries < 10 {
        tries += 1;
        tokio::time::sleep(Duration::from_millis(10 * tries)).await;
    }
    loop {
        let changed = match &mut changes {
            Some(changes) => changes.recv().await.is_some(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
        resize(client, path).await;
    }
}

/// Makes the terminal one larger each way: the true size that follows then makes the program draw its prompt again.
pub async fn nudge(client: &Client, path: &Path) {
    let (rows, columns) = terminal::size();
    let query = Query::new()
        .with("h", (rows + 1).to_string())
        .with("w", (columns + 1).to_string());
    // A program that does not redraw is no reason to refuse the attach.
    let _ = client.call(Request::post(path.clone()).query(query)).await;
}

async fn resize(client: &Client, path: &Path) -> bool {
    let (rows, columns) = terminal::size();
    if rows == 0 && columns == 0 {
        return true;
    }
    let query = Query::new()
        .with("h", rows.to_string())
        .with("w", columns.to_string());
    client
        .call(Request::post(path.clone()).query(query))
        .await
        .is_ok()
}
