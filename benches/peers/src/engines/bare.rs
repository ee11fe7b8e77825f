//! The floor: the same system calls with a frame's checksum and copy, and nothing else around them. The only file with `unsafe`.
#![expect(unsafe_code, reason = "maps, futexes and getrusage")]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Can, Engine, Entrant, Role, Setup, Survives};
use crate::Result;
use crate::records::part_of;

/// One record a call: a small shared map of a file as staging buffer, drained by `pwrite` into a preallocated file.
pub(super) const STAGING: Entrant = Entrant {
    name: "bare: staging map + `pwrite`",
    role: Role::Bare,
    package: "",
    levels: &[(Survives::Kill, "stores into a shared map of 256 KiB")],
    can: &[Can::Append, Can::Threads, Can::Shards],
    open: |setup| Ok(Box::new(Staging::open(setup)?)),
};

/// One `pwrite` a call into a preallocated file.
pub(super) const WRITE: Entrant = Entrant {
    name: "bare: `pwrite`",
    levels: &[(Survives::Kill, "`pwrite`")],
    can: &[Can::Append, Can::Batch],
    open: |setup| Ok(Box::new(Written::open(setup, true)?)),
    ..STAGING
};

/// Frames read out of a map, each checksum verified.
pub(super) const MAP: Entrant = Entrant {
    name: "bare: map, CRC",
    can: &[Can::Scan, Can::Get, Can::Tail],
    open: |setup| Ok(Box::new(Written::open(setup, true)?)),
    ..WRITE
};

/// Frames read out of a map, believed.
pub(super) const MAP_UNCHECKED: Entrant = Entrant {
    name: "bare: map",
    can: &[Can::Scan, Can::Get, Can::Tail],
    open: |setup| Ok(Box::new(Written::open(setup, false)?)),
    ..WRITE
};

/// Group commit into a file written before with zeros; one futex broadcast tells a group.
pub(super) const GROUP_FUTEX: Entrant = Entrant {
    name: "bare: group commit, futex",
    role: Role::Bare,
    package: "",
    levels: &[(Survives::PowerCut, "`pwrite` and `fdatasync`, shared")],
    can: &[Can::Append, Can::Threads],
    open: |setup| Ok(Box::new(Group::open(setup, Waiting::Parked)?)),
};

/// The same; those who wait yield.
pub(super) const GROUP_YIELD: Entrant = Entrant {
    name: "bare: group commit, yield",
    open: |setup| Ok(Box::new(Group::open(setup, Waiting::Yielding)?)),
    ..GROUP_FUTEX
};

/// One futex wake; no log at all.
pub(super) const FUTEX: Entrant = Entrant {
    name: "bare: futex wake",
    role: Role::Bare,
    package: "",
    levels: &[(Survives::Nothing, "no record, one `FUTEX_WAKE`")],
    can: &[Can::Park],
    open: |_| Err("not a log".into()),
};

const STAGING_BYTES: usize = 256 << 10;
/// The staging map begins with the length of what it holds.
const STAGED_LENGTH_BYTES: usize = 8;
/// CRC, length, key.
const FRAME_HEADER_BYTES: usize = 24;
const KEY: [u8; 16] = *b"partition-000001";
/// What group commits overwrite again and again: to the disk it is like a file written before with zeros.
const RING_BYTES: u64 = 64 << 20;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a frame: what every log has to do with a record.
fn frame(to: &mut [u8], data: &[u8]) {
    to[4..8].copy_from_slice(&(data.len() as u32).to_le_bytes());
    to[8..FRAME_HEADER_BYTES].copy_from_slice(&KEY);
    to[FRAME_HEADER_BYTES..].copy_from_slice(data);
    let crc = crc32fast::hash(&to[4..]);
    to[..4].copy_from_slice(&crc.to_le_bytes());
}

fn push_frame(to: &mut Vec<u8>, data: &[u8]) {
    let start = to.len();
    to.resize(start + FRAME_HEADER_BYTES + data.len(), 0);
    frame(&mut to[start..], data);
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: a call with numbers only, on a descriptor that is open.
    let failed = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes.cast_signed()) };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// A shared map of a file's beginning.
struct Map {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the map belongs to the process, not to a thread; its methods say how threads may share it.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(file: &File, bytes: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new map at an address of the kernel's choice replaces nothing.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), bytes })
    }

    fn bytes(&self, from: usize, to: usize) -> &[u8] {
        assert!(from <= to && to <= self.bytes);
        // SAFETY: in bounds, mapped until the drop; the engines below read only what was written and is not written again.
        unsafe { slice::from_raw_parts(self.start.add(from), to - from) }
    }

    /// Of a writable map. (`&mut` so that nobody reads meanwhile.)
    fn bytes_mut(&mut self, from: usize, to: usize) -> &mut [u8] {
        assert!(from <= to && to <= self.bytes);
        // SAFETY: in bounds, mapped until the drop; its owner alone writes and reads it.
        unsafe { slice::from_raw_parts_mut(self.start.add(from), to - from) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no borrow outlives it.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// One record a call, into a staging map, of which each of several logs has its own.
struct Staging {
    logs: Vec<Mutex<StagingLog>>,
}

struct StagingLog {
    map: Map,
    staged: usize,
    file: File,
    drained: u64,
}

impl Staging {
    fn open(setup: &Setup<'_>) -> Result<Self> {
        let log = |index| Ok(Mutex::new(StagingLog::open(setup, index)?));
        Ok(Self { logs: (0..setup.shards).map(log).collect::<Result<_>>()? })
    }
}

impl StagingLog {
    fn open(setup: &Setup<'_>, index: u32) -> Result<Self> {
        let staging = create(&setup.dir.join(format!("staging-{index}")))?;
        staging.write_all_at(&vec![0; STAGING_BYTES], 0)?;
        let map = Map::new(&staging, STAGING_BYTES, true)?;
        let file = create(&setup.dir.join(format!("log-{index}")))?;
        preallocate(&file, framed_volume(setup) / u64::from(setup.shards))?;
        Ok(Self { map, staged: STAGED_LENGTH_BYTES, file, drained: 0 })
    }

    fn drain(&mut self) -> io::Result<()> {
        self.file.write_all_at(self.map.bytes(STAGED_LENGTH_BYTES, self.staged), self.drained)?;
        self.drained += (self.staged - STAGED_LENGTH_BYTES) as u64;
        self.staged = STAGED_LENGTH_BYTES;
        Ok(())
    }
}

impl Engine for Staging {
    fn append(&self, data: &[u8]) -> Result<()> {
        let log = &mut *locked(&self.logs[part_of(data, self.logs.len())]);
        let bytes = FRAME_HEADER_BYTES + data.len();
        if log.staged + bytes > STAGING_BYTES {
            log.drain()?;
        }
        let end = log.staged + bytes;
        frame(log.map.bytes_mut(log.staged, end), data);
        log.map.bytes_mut(0, STAGED_LENGTH_BYTES).copy_from_slice(&(end as u64).to_le_bytes());
        log.staged = end;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        for log in &self.logs {
            let log = &mut *locked(log);
            log.drain()?;
            log.file.set_len(log.drained)?;
        }
        Ok(())
    }
}

/// What the records take with their frames, and some room.
fn framed_volume(setup: &Setup<'_>) -> u64 {
    let records = setup.volume_bytes / setup.record_bytes as u64 + 1_000;
    records * (setup.record_bytes + FRAME_HEADER_BYTES) as u64
}

/// Written by `pwrite`, read from a map.
struct Written {
    file: File,
    map: Map,
    checked: bool,
    frame_bytes: usize,
    buffer: Mutex<Vec<u8>>,
    end: AtomicU64,
}

impl Written {
    fn open(setup: &Setup<'_>, checked: bool) -> Result<Self> {
        let file = create(&setup.dir.join("log"))?;
        preallocate(&file, framed_volume(setup))?;
        let map = Map::new(&file, framed_volume(setup) as usize, false)?;
        let frame_bytes = FRAME_HEADER_BYTES + setup.record_bytes;
        Ok(Self { file, map, checked, frame_bytes, buffer: Mutex::default(), end: AtomicU64::new(0) })
    }

    fn read(&self, offset: usize) -> Result<&[u8]> {
        let frame = self.map.bytes(offset, offset + self.frame_bytes);
        if self.checked && frame[..4] != crc32fast::hash(&frame[4..]).to_le_bytes() {
            return Err("checksum".into());
        }
        Ok(&frame[FRAME_HEADER_BYTES..])
    }
}

impl Engine for Written {
    fn append(&self, data: &[u8]) -> Result<()> {
        self.append_batch(&[data])
    }

    fn append_batch(&self, batch: &[&[u8]]) -> Result<()> {
        let mut buffer = locked(&self.buffer);
        buffer.clear();
        for data in batch {
            push_frame(&mut buffer, data);
        }
        let end = self.end.load(Ordering::Relaxed);
        self.file.write_all_at(&buffer, end)?;
        self.end.store(end + buffer.len() as u64, Ordering::Release);
        Ok(())
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let end = self.end.load(Ordering::Acquire) as usize;
        for offset in (from as usize * self.frame_bytes..end).step_by(self.frame_bytes) {
            visit(self.read(offset)?);
        }
        Ok(())
    }

    fn get(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(self.read(number as usize * self.frame_bytes)?);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.file.set_len(self.end.load(Ordering::Relaxed))?)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Parked,
    Yielding,
}

/// Group commit: who finds nobody leading writes and syncs what all have buffered; the next leader is woken before
/// the group is told, and starts meanwhile. Groups are counted from 1.
struct Group {
    file: File,
    waiting: Waiting,
    open: Mutex<OpenGroup>,
    leading: AtomicBool,
    /// The last group that is on the disk.
    done: AtomicU32,
    /// Where groups wait, even and odd ones: those of the open group are not woken with those that are told.
    told: [Futex; 2],
    failed: AtomicBool,
}

struct OpenGroup {
    number: u32,
    buffer: Vec<u8>,
    spare: Vec<u8>,
    offset: u64,
}

impl Group {
    fn open(setup: &Setup<'_>, waiting: Waiting) -> Result<Self> {
        let file = create(&setup.dir.join("log"))?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..RING_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        let open = OpenGroup { number: 1, buffer: Vec::new(), spare: Vec::new(), offset: 0 };
        Ok(Self {
            file,
            waiting,
            open: Mutex::new(open),
            leading: AtomicBool::new(false),
            done: AtomicU32::new(0),
            told: Default::default(),
            failed: AtomicBool::new(false),
        })
    }

    fn is_done(&self, group: u32) -> bool {
        self.done.load(Ordering::Acquire) >= group
    }

    fn lead(&self) {
        let mut open = locked(&self.open);
        let (group, offset) = (open.number, open.offset);
        let spare = std::mem::take(&mut open.spare);
        let mut buffer = std::mem::replace(&mut open.buffer, spare);
        open.number += 1;
        open.offset = (offset + buffer.len() as u64) % (RING_BYTES / 2);
        drop(open);
        let result = self.file.write_all_at(&buffer, offset).and_then(|()| self.file.sync_data());
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        buffer.clear();
        locked(&self.open).spare = buffer;
        self.done.store(group, Ordering::Release);
        self.leading.store(false, Ordering::SeqCst);
        if self.waiting == Waiting::Parked {
            self.told[(group as usize + 1) % 2].wake(1);
            self.told[group as usize % 2].wake(i32::MAX);
        }
    }

    fn wait(&self, group: u32) {
        let told = &self.told[group as usize % 2];
        while !self.is_done(group) {
            let ticket = told.ticket();
            if !self.leading.swap(true, Ordering::SeqCst) {
                // The group may have been written just before.
                if self.is_done(group) {
                    self.leading.store(false, Ordering::SeqCst);
                    self.told[(group as usize + 1) % 2].wake(1);
                    return;
                }
                self.lead();
            } else if self.waiting == Waiting::Yielding {
                std::thread::yield_now();
            } else if !self.is_done(group) {
                told.wait(ticket);
            }
        }
    }
}

impl Engine for Group {
    fn append(&self, data: &[u8]) -> Result<()> {
        let mut open = locked(&self.open);
        push_frame(&mut open.buffer, data);
        let group = open.number;
        drop(open);
        self.wait(group);
        if self.failed.load(Ordering::Acquire) { Err("write or sync failed".into()) } else { Ok(()) }
    }
}

/// A counter in the kernel's sight: a waiter sleeps unless it was woken since it took its ticket.
#[derive(Default)]
pub(crate) struct Futex {
    wakes: AtomicU32,
}

impl Futex {
    pub(crate) fn ticket(&self) -> u32 {
        self.wakes.load(Ordering::SeqCst)
    }

    pub(crate) fn wait(&self, ticket: u32) {
        let (wait, no_timeout) = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, ptr::null::<libc::timespec>());
        // SAFETY: the word lives as long as `self`; the kernel only compares it.
        unsafe {
            libc::syscall(libc::SYS_futex, self.wakes.as_ptr(), wait, ticket, no_timeout);
        }
    }

    pub(crate) fn wake(&self, most: i32) {
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        self.wakes.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the word lives as long as `self`; the kernel uses its address only.
        unsafe {
            libc::syscall(libc::SYS_futex, self.wakes.as_ptr(), wake, most);
        }
    }
}

/// The processor time of this process so far, its own and the kernel's for it.
pub(crate) fn cpu_time() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the whole structure in; all its bytes were zero, which is a value too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let microseconds = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Duration::from_micros((microseconds(usage.ru_utime) + microseconds(usage.ru_stime)).cast_unsigned())
}

/// Ends this process as `kill -9` does.
pub(crate) fn kill_self() -> ! {
    // SAFETY: signals this process, which has nothing to keep.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}
