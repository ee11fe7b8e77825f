//! A fork of a process that has a stream open.
#![allow(unsafe_code, reason = "fork and _exit")]

use anabranch::{Durability, Stream};

use crate::records::assert_sound;

/// The child has a copy of the handle. It must not unlock, flush, seal or wait for what is its parent's.
#[test]
fn a_forks_copy_changes_nothing() {
    for durability in [Durability::Synced, Durability::Buffered] {
        for closes in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("stream");
            let stream = Stream::builder().durability(durability).create(&path).unwrap();
            for byte in 0..10_u8 {
                stream.put("key", [byte]).unwrap();
            }
            // SAFETY: the child only drops a handle, which takes no lock that another thread may have held, and leaves.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let mut code = 0;
                if closes {
                    code = i32::from(stream.close().is_ok());
                } else {
                    drop(stream);
                }
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(code) }
            }
            let mut status = 0;
            // SAFETY: `status` is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child");
            assert!(Stream::builder().open(&path).is_err(), "the lock is held as before");
            for byte in 10..20_u8 {
                stream.put("key", [byte]).unwrap();
            }
            stream.close().unwrap();
            assert_sound(&path);
            let stream = Stream::builder().open(&path).unwrap();
            assert!(stream.recovery().was_clean);
            let records = stream.records(anabranch::RecordsStart::TrimHorizon).unwrap().available().count();
            assert_eq!(records, 20);
        }
    }
}
