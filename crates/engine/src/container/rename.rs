//! `rename`.

use crate::{Engine, Error, Result};

impl Engine {
    /// Gives a container another name.
    ///
    /// # Errors
    /// Not found; a malformed name; a name in use (conflict).
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let container = self.container(name)?;
        let new_name = new_name.strip_prefix('/').unwrap_or(new_name).to_owned();
        self.own(container, move |engine, container, mut owner| async move {
            if new_name.is_empty() {
                return Err(Error::invalid("Neither old nor new names may be empty"));
            }
            let record = container.record();
            let old_name = record.name.clone();
            let taken = |error: Error| {
                Error::new(
                    error.kind(),
                    format!("Error when allocating new name: {error}"),
                )
            };
            if old_name == new_name {
                return Err(Error::invalid(
                    "Renaming a container with the same name as its current name",
                ));
            }
            if super::check_name(&new_name).is_err() {
                // Told with the slash, as Docker keeps names.
                return Err(taken(super::bad_name(&format!("/{new_name}"))));
            }
            if let Err(holder) = engine
                .inner
                .containers
                .reserve_name(&new_name, &container.id)
            {
                return Err(taken(super::name_in_use(&new_name, &holder)));
            }
            let name = new_name.clone();
            let saved = engine
                .keep(&container, &mut owner, |record| record.name = name)
                .await;
            if let Err(error) = saved {
                engine
                    .inner
                    .containers
                    .release_name(&new_name, &container.id);
                return Err(error);
            }
            engine
                .inner
                .containers
                .release_name(&old_name, &container.id);
            let (own, record) = (engine.clone(), container.record());
            let told = crate::blocking::run(move || own.tell_new_names(&record)).await;
            if let Ok(Err(error)) = told {
                tracing::error!(container = container.id, %error, "tell a new name");
            }
            engine.container_event(
                "rename",
                &container.record(),
                &[("oldName", &format!("/{old_name}"))],
                None,
            );
            Ok(())
        })
        .await
    }
}
