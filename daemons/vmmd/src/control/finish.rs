//! Ending in order, when a signal asks for it. Nothing new is taken on; what is under way is made durable and answered; the event log
//! hears that `vmmd` ends. Each has a bound, and unikernels run on: whatever is not done by then is as if the client had hung up.

use std::io;
use std::time::Duration;

use fulmar_core::limits::{CONNECTIONS_MAX, FAREWELL_MS_MAX, FINISH_MS_MAX};
use fulmar_host::info;
use mio::Events;

use super::connections::Stage;
use super::{Control, Ended};

impl Control<'_> {
    /// Comes to an end.
    ///
    /// # Errors
    /// What the event loop died of.
    pub(super) fn finish(&mut self, events: &mut Events) -> io::Result<Ended> {
        info!("ending, as asked by a signal: unikernels go on");
        // Who comes from now on is told at once that nobody is here, or waits for the next one where the socket is not ours.
        self.listener = None;
        self.made = None;
        self.turn_until(FINISH_MS_MAX, events, |control| !control.is_under_way())?;
        self.tell_daemon(false);
        self.flush_log();
        self.turn_until(FAREWELL_MS_MAX, events, |control| !control.log_link.is_owed())?;
        Ok(Ended::Asked)
    }

    /// Goes on until something is so, at most so long, or until the host half is gone.
    fn turn_until(
        &mut self,
        limit_ms: u64,
        events: &mut Events,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> io::Result<()> {
        let until_ms = self.clock.now().ms + limit_ms;
        while !is_so(self) {
            let left_ms = until_ms.saturating_sub(self.clock.now().ms);
            if left_ms == 0 || !self.turn(events, Some(Duration::from_millis(left_ms)))? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether somebody is owed a reply, or a record is not durable yet. Who is not is hung up on.
    fn is_under_way(&mut self) -> bool {
        let mut is_owed = !self.appends.filling.is_empty() || self.appends.spare.is_none();
        for index in 0..u16::try_from(CONNECTIONS_MAX).unwrap_or(u16::MAX) {
            let connection = self.connections.get(index);
            if connection.stream.is_none() {
                continue;
            }
            match connection.stage {
                Stage::Waiting | Stage::Deferred | Stage::Writing => is_owed = true,
                // It may have asked already; nothing has been done about it.
                Stage::Reading | Stage::Receiving | Stage::Imaging | Stage::Lingering => self.close(index),
            }
        }
        is_owed
    }
}
