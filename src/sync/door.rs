//! A place where many threads wait for one event, and are let out by one call.

pub(crate) use imp::Door;

/// One word in the kernel's sight. `parking_lot` wakes its waiters one by one, each by a call of its own, and hands them a lock first.
#[cfg(all(target_os = "linux", not(shuttle)))]
mod imp {
    use std::sync::atomic::{AtomicU32, Ordering};

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
