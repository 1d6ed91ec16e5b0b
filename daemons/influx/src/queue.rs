//! Lines that wait to be sent: bounded in bytes; when there are more, the oldest go, and are counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::line::{Form, Lines};

/// Bytes that wait for one place: an hour of 100 unikernels, some minutes of 1,000.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// Bytes that are sent at once.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 10;

/// A queue, and what became of its lines.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Where they go, for people.
    place: &'static str,
    form: Form,
    waiting: Mutex<Waiting>,
    filled: Condvar,
    sent: AtomicU64,
    dropped: AtomicU64,
    connected: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Lines>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(place: &'static str, form: Form) -> Self {
        Self {
            place,
            form,
            waiting: Mutex::default(),
            filled: Condvar::new(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            connected: AtomicBool::new(false),
        }
    }

    pub(crate) fn place(&self) -> &'static str {
        self.place
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Adds lines; where there is no room the oldest make some.
    pub(crate) fn push(&self, lines: Lines) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += lines.text.len();
        waiting.lines.push_back(lines);
        while waiting.bytes > QUEUE_BYTES_MAX
            && let Some(oldest) = waiting.lines.pop_front()
        {
            waiting.bytes -= oldest.text.len();
            self.drop_lines(oldest.count);
        }
        self.filled.notify_one();
    }

    /// Waits for lines and takes as many as are sent at once.
    pub(crate) fn take(&self) -> Lines {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Lines { text: String::new(), count: 0 };
        loop {
            while batch.text.len() < BATCH_BYTES_MAX
                && let Some(lines) = waiting.lines.pop_front()
            {
                waiting.bytes -= lines.text.len();
                batch.text.push_str(&lines.text);
                batch.count += lines.count;
            }
            if batch.count > 0 {
                return batch;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts back what could not be sent, to be sent first.
    pub(crate) fn put_back(&self, lines: Lines) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes + lines.text.len() > QUEUE_BYTES_MAX {
            return self.drop_lines(lines.count);
        }
        waiting.bytes += lines.text.len();
        waiting.lines.push_front(lines);
    }

    /// Notes that so many lines will not be sent.
    pub(crate) fn drop_lines(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn note_sent(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn note_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Lines sent, lines dropped, and whether the last attempt to send went well.
    pub(crate) fn fate(&self) -> (u64, u64, bool) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.sent), read(&self.dropped), self.connected.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: usize) -> Lines {
        Lines { text: "x".repeat(bytes), count: 1 }
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let queue = Queue::new("test", Form { full_names: false, with_time: false });
        for number in 0..20 {
            queue.push(lines((1 << 20) + number));
        }
        assert_eq!(queue.fate(), (0, 5, false));
        let oldest = queue.take();
        assert_eq!(oldest.text.len(), (1 << 20) + 5);
        queue.put_back(oldest.clone());
        assert_eq!(queue.take(), oldest);
        queue.push(lines(1));
        queue.push(lines(1));
        // It would not fit any more.
        queue.push(lines(1 << 20));
        queue.put_back(oldest);
        assert_eq!(queue.fate().1, 6);
        // Small ones go together.
        for _ in 0..14 {
            queue.take();
        }
        assert_eq!(queue.take().count, 3);
    }
}
