//! The end of a run, asked for from outside (a signal, the time) or by a plugin.

use std::sync::Arc;

use tokio::sync::watch;

/// Asks a run to end.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<bool>>);

/// Tells whether the run should end.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: watch::Receiver<bool>,
    stopper: Stopper,
}

/// The two ends.
pub fn stopper() -> (Stopper, Stop) {
    let (sender, asked) = watch::channel(false);
    let stopper = Stopper(Arc::new(sender));
    (stopper.clone(), Stop { asked, stopper })
}

impl Stopper {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when the end has been asked for.
    pub async fn asked(&mut self) {
        // The sender lives as long as `self` does.
        let _ = self.asked.wait_for(|asked| *asked).await;
    }

    pub fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Ends the whole run.
    pub fn everything(&self) {
        self.stopper.stop();
    }
}
