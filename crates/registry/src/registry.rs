//! One registry: its store, its rights, its counters.

use crate::auth::Auth;
use crate::cache::Cache;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::store::Store;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore};

/// Is what all requests share.
pub struct Registry {
    pub(crate) store: Arc<Store>,
    pub(crate) auth: Auth,
    pub(crate) cache: Option<Cache>,
    pub(crate) metrics: Metrics,
    pub(crate) options: Options,
    /// Bodies that may be received at once.
    pub(crate) receiving: Semaphore,
    /// One collection at a time.
    pub(crate) collecting: Mutex<()>,
}

impl Registry {
    /// Opens the store and reads the files that the options name.
    ///
    /// # Errors
    /// Fails where the store is in use, or a file cannot be read.
    pub fn open(options: Options) -> Result<Arc<Self>> {
        let store = Arc::new(Store::open(&options.root, options.engine_root.clone())?);
        let cache = Cache::new(&options, Arc::clone(&store))?;
        Ok(Arc::new(Self {
            auth: Auth::open(&options)?,
            cache,
            store,
            metrics: Metrics::default(),
            receiving: Semaphore::new(options.limits.uploads_at_once),
            collecting: Mutex::default(),
            options,
        }))
    }
}
