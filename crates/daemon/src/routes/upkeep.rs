//! What Docker has not: the collection of images by policy, and the check of the store.

use crate::convert;
use crate::server::request::Request;
use crate::server::respond::{self, Reply};

/// Tells the policy by which images are removed.
pub fn policy(request: &Request) -> Reply {
    let policy = request.daemon.engine.image_gc_policy();
    respond::ok(&convert::upkeep::policy(&policy))
}

/// Removes images by the policy, or tells what it would remove.
pub async fn collect(request: Request) -> Reply {
    let dry_run = request.query.flag("dry-run");
    let report = request.daemon.engine.collect_images(dry_run).await?;
    respond::ok(&convert::upkeep::collected(report))
}

/// Checks the whole store against its digests.
pub async fn check(request: Request) -> Reply {
    let repair = request.query.flag("repair");
    let report = request.daemon.engine.check_store(repair).await?;
    respond::ok(&convert::upkeep::checked(report))
}
