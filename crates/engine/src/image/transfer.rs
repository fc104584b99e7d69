//! Pull, push, login, search: the image crate's transfers with their events.

use gantry_api::oci::image::Descriptor;
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use gantry_image::distribution::{self, Credentials, Login, SearchResult, SignaturePolicy};
use gantry_image::{Concurrency, PullOptions, PushOptions, TransferEvent};
use tokio::sync::mpsc;

use super::error;
use crate::{Engine, Result};

impl Engine {
    /// Sets what the engine knows of registries, at its start and whenever that changes.
    pub fn configure_registries(
        &self,
        config: distribution::Config,
        concurrency: Concurrency,
        signatures: Option<SignaturePolicy>,
    ) -> Result<()> {
        let transfers = &self.inner.transfers;
        transfers
            .configure(config, concurrency, signatures)
            .map_err(error)
    }

    /// Pulls an image, or all tags of a repository. Dropping the receiver cancels what no other pull shares.
    ///
    /// # Errors
    /// What is known before the first line is told is an error of the call, all else comes as the last item.
    pub async fn pull(
        &self,
        options: PullOptions,
    ) -> Result<mpsc::Receiver<Result<TransferEvent>>> {
        let engine = self.clone();
        let done = Box::new(move |reference: &Reference| engine.transferred("pull", reference));
        let events = self.inner.transfers.pull(options, done).await;
        Ok(forward(events.map_err(error)?))
    }

    /// Pushes an image, or all tags of a repository. Dropping the receiver cancels.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn push(
        &self,
        options: PushOptions,
    ) -> Result<mpsc::Receiver<Result<TransferEvent>>> {
        let engine = self.clone();
        let done = Box::new(move |reference: &Reference| engine.transferred("push", reference));
        let events = self.inner.transfers.push(options, done).await;
        Ok(forward(events.map_err(error)?))
    }

    /// Tells of a transfer as Docker does: by the name that was asked for, with the image's labels.
    fn transferred(&self, action: &str, reference: &Reference) {
        let shown = reference.to_string();
        let image = self.inner.images.get(&shown).ok();
        let labels = image.and_then(|image| image.config().config.labels.clone());
        let mut attributes = labels.unwrap_or_default();
        attributes.insert("name".to_owned(), reference.familiar_name());
        self.inner.events.emit("image", action, &shown, attributes);
    }

    /// Checks credentials at a registry.
    pub async fn login(&self, server: &str, credentials: Credentials) -> Result<Login> {
        let registries = self.inner.transfers.registries().map_err(error)?;
        let answer = registries.login(server, &credentials).await;
        answer.map_err(|failure| error(failure.into()))
    }

    /// Searches a registry by the old index protocol; the term may begin with a host.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        credentials: Credentials,
        headers: &[(String, String)],
    ) -> Result<Vec<SearchResult>> {
        let registries = self.inner.transfers.registries().map_err(error)?;
        let answer = registries.search(term, limit, &credentials, headers).await;
        answer.map_err(|failure| error(failure.into()))
    }

    /// Asks a registry what a reference stands for: its descriptor and the platforms it has.
    pub async fn distribution_inspect(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<(Descriptor, Vec<Platform>)> {
        let transfers = &self.inner.transfers;
        transfers
            .inspect(reference, credentials)
            .await
            .map_err(error)
    }
}

/// Gives the lines of a transfer with the engine's errors.
fn forward(mut events: gantry_image::Events) -> mpsc::Receiver<Result<TransferEvent>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                // The client has gone; so does the transfer, when its own lines have no reader.
                () = sender.closed() => None,
            };
            let Some(event) = event else { break };
            if sender.send(event.map_err(error)).await.is_err() {
                break;
            }
        }
        drop(events);
        gantry_sys::epoll::trim_heap();
    });
    receiver
}
