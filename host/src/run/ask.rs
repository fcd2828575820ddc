//! The account on demand: asked for from outside while plugins run, answered by each of them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::Account;

/// Asks all plugins of a run for their accounts.
#[derive(Clone, Debug)]
pub struct Asker(Arc<watch::Sender<()>>);

/// Where a plugin learns that it is asked, and answers.
#[derive(Clone, Debug)]
pub struct Asked {
    asked: watch::Receiver<()>,
    /// Keeps `asked` open.
    _asker: Asker,
    answers: mpsc::UnboundedSender<Account>,
}

/// The two ends, and the answers.
pub fn asker() -> (Asker, Asked, mpsc::UnboundedReceiver<Account>) {
    let (sender, asked) = watch::channel(());
    let (answers, answered) = mpsc::unbounded_channel();
    let asker = Asker(Arc::new(sender));
    (asker.clone(), Asked { asked, _asker: asker, answers }, answered)
}

impl Asker {
    pub fn ask(&self) {
        self.0.send_replace(());
    }
}

impl Asked {
    /// Returns when the account has been asked for, once for all the times it was meanwhile.
    pub(super) async fn asked(&mut self) {
        // The sender lives as long as `self` does.
        let _ = self.asked.changed().await;
    }

    pub(super) fn answer(&self, account: Account) {
        // Nobody need wait for it.
        let _ = self.answers.send(account);
    }
}
