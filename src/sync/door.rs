//! A place where many threads wait for one event, and are let out by one call.

pub(crate) use imp::Door;

/// One word in the kernel's sight. `parking_lot` wakes its waiters one by one, each by a call of its own, and hands them a lock first.
#[cfg(all(target_os = "linux", not(shuttle)))]
mod imp {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::futex;

    /// Threads take a ticket, let go of whatever lock protects what they wait for, and wait until the door is opened.
    #[derive(Debug, Default)]
    pub(crate) struct Door {
        openings: AtomicU32,
    }

    impl Door {
        /// What to wait with: the door will have opened once it is another one.
        pub(crate) fn ticket(&self) -> u32 {
            self.openings.load(Ordering::SeqCst)
        }

        /// Waits until the door is opened after the ticket was taken, or for less: callers look again.
        pub(crate) fn wait(&self, ticket: u32) {
            // Whatever it answers, the caller looks: it was woken, was interrupted, or the door had opened.
            let _ = futex::wait(&self.openings, futex::Flags::PRIVATE, ticket, None);
        }

        /// As [`wait`](Self::wait), for `timeout` at most.
        pub(crate) fn wait_for(&self, ticket: u32, timeout: Duration) {
            let timeout = futex::Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            };
            let _ = futex::wait(&self.openings, futex::Flags::PRIVATE, ticket, Some(&timeout));
        }

        /// Lets everybody out.
        pub(crate) fn open(&self) {
            self.let_out(i32::MAX.cast_unsigned());
        }

        /// Lets one out who waits, and who is just about to.
        pub(crate) fn open_for_one(&self) {
            self.let_out(1);
        }

        fn let_out(&self, most: u32) {
            self.openings.fetch_add(1, Ordering::SeqCst);
            // It cannot fail: the word is there.
            let _ = futex::wake(&self.openings, futex::Flags::PRIVATE, most);
        }
    }
}

#[cfg(not(all(target_os = "linux", not(shuttle))))]
mod imp {
    use std::time::Duration;

    use crate::sync::{Condvar, Mutex};

    #[derive(Debug, Default)]
    pub(crate) struct Door {
        openings: Mutex<u32>,
        opened: Condvar,
    }

    impl Door {
        pub(crate) fn ticket(&self) -> u32 {
            *self.openings.lock()
        }

        pub(crate) fn wait(&self, ticket: u32) {
            let mut openings = self.openings.lock();
            if *openings == ticket {
                self.opened.wait(&mut openings);
            }
        }

        pub(crate) fn wait_for(&self, ticket: u32, timeout: Duration) {
            let mut openings = self.openings.lock();
            if *openings == ticket {
                self.opened.wait_for(&mut openings, timeout);
            }
        }

        pub(crate) fn open(&self) {
            *self.openings.lock() += 1;
            self.opened.notify_all();
        }

        pub(crate) fn open_for_one(&self) {
            *self.openings.lock() += 1;
            self.opened.notify_one();
        }
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use super::Door;

    const SOON: Duration = Duration::from_secs(20);

    /// Threads at a door, each of which says when it was let out; and how often they looked whether they were.
    struct Waiters {
        door: Arc<Door>,
        looks: Arc<AtomicU32>,
        out: Receiver<()>,
    }

    impl Waiters {
        /// They have their tickets when this returns, and most likely wait.
        fn new(count: usize) -> Self {
            let (door, looks) = (Arc::new(Door::default()), Arc::new(AtomicU32::new(0)));
            for _ in 0..3 {
                door.open(); // nobody waits yet; a ticket of a used door is one of many
            }
            let (say, out) = channel();
            let (came, come) = channel();
            for _ in 0..count {
                let (door, looks, say, came) = (Arc::clone(&door), Arc::clone(&looks), say.clone(), came.clone());
                thread::spawn(move || {
                    let ticket = door.ticket();
                    came.send(()).unwrap();
                    while door.ticket() == ticket {
                        looks.fetch_add(1, Ordering::SeqCst);
                        door.wait(ticket);
                    }
                    say.send(()).unwrap();
                });
            }
            (0..count).for_each(|_| come.recv_timeout(SOON).unwrap());
            thread::sleep(Duration::from_millis(50));
            Self { door, looks, out }
        }

        fn assert_out(&self, count: usize) {
            for _ in 0..count {
                self.out.recv_timeout(SOON).unwrap();
            }
        }
    }

    #[test]
    fn an_opened_door_lets_everybody_out() {
        let waiters = Waiters::new(3);
        assert!(waiters.out.try_recv().is_err(), "somebody did not wait");
        waiters.door.open();
        waiters.assert_out(3);
        let looks = waiters.looks.load(Ordering::SeqCst);
        assert!(looks < 100, "they slept, and did not look {looks} times");
    }

    #[test]
    fn one_is_let_out_of_many() {
        let waiters = Waiters::new(3);
        waiters.door.open_for_one();
        waiters.assert_out(1); // the others may, too: they look again
        waiters.door.open();
        waiters.assert_out(2);
    }

    /// Nothing is lost between the ticket and the wait.
    #[test]
    fn a_ticket_of_before_the_opening_is_not_waited_with() {
        for open in [Door::open, Door::open_for_one] {
            let door = Arc::new(Door::default());
            let ticket = door.ticket();
            open(&door);
            assert_ne!(door.ticket(), ticket);
            let (say, out) = channel();
            thread::spawn(move || {
                door.wait(ticket);
                say.send(()).unwrap();
            });
            out.recv_timeout(SOON).unwrap();
        }
    }
}
