//! Iterators walked: once, or each time the plugin's tick comes.
//!
//! A walk pauses before the ring is full, and goes on when the plugin has been given what is in it. So a walk loses no
//! event, however slow the plugin is, and it takes as long as the plugin does.

use super::{Feed, RunError, Stop};
use crate::load::Attached;

impl Feed<'_> {
    /// Walks each iterator to its end, and gives the plugin all that it sends. Ends early where `stop` says so or the
    /// plugin finishes.
    pub(super) async fn walk_all(&mut self, attached: &Attached, stop: &Stop) -> Result<(), RunError> {
        for mut walk in attached.walks()? {
            let mut more = true;
            while more && !stop.is_asked() && self.plugin.finished().is_none() {
                let paused = tokio::task::spawn_blocking(move || (walk.go_on(), walk)).await;
                let (gone, back) = paused.map_err(|error| RunError::Task(error.to_string()))?;
                walk = back;
                self.deliver_all(attached, Some(stop)).await?;
                more = gone?;
            }
        }
        Ok(())
    }
}
