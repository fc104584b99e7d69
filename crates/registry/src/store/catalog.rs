//! All repositories.

use super::{Store, list};
use crate::error::Result;
use crate::name::{Name, is_component};
use std::ops::ControlFlow;

impl Store {
    /// Lists the repositories that have a manifest, in the order of their names' bytes.
    ///
    /// # Errors
    /// Fails where a directory cannot be read.
    pub fn catalog(&self) -> Result<Vec<Name>> {
        let mut names = self.all_repositories()?;
        let mut with_manifest = Vec::new();
        for name in names.drain(..) {
            if !self.manifests(&name)?.is_empty() {
                with_manifest.push(name);
            }
        }
        Ok(with_manifest)
    }

    /// Lists all repositories, those without a manifest too.
    pub(super) fn all_repositories(&self) -> Result<Vec<Name>> {
        let mut found = Vec::new();
        self.walk(|name| {
            found.push(name);
            ControlFlow::Continue(())
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Visits the repositories in no order until the visitor has enough.
    pub(super) fn walk(&self, mut visit: impl FnMut(Name) -> ControlFlow<()>) -> Result<()> {
        let mut pending = vec![String::new()];
        while let Some(above) = pending.pop() {
            let mut is_repository = false;
            for entry in list(&self.root.join("repositories").join(&above))? {
                if is_component(&entry) {
                    pending.push(match above.as_str() {
                        "" => entry,
                        _ => format!("{above}/{entry}"),
                    });
                } else {
                    is_repository = true;
                }
            }
            if is_repository
                && let Ok(name) = Name::parse(&above)
                && visit(name).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}
