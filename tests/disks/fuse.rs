//! A file system in this process whose files are disks: the kernel's side of a loop device ends here, so every write and every flush
//! that reaches the "hardware" is seen, in order.
//!
//! It speaks the protocol of `/dev/fuse` (`include/uapi/linux/fuse.h`): the dozen requests that a loop device needs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::image::{Event, Image};

/// Writes to this file are [marks](Event::Mark) in the log of the disk made last.
pub(crate) const MARKS: &str = "marks";

const ROOT_NODE: u64 = 1;
const MARKS_NODE: u64 = 2;
const FIRST_DISK_NODE: u64 = 3;
const LONGEST_WRITE: usize = 1 << 20;
const FOREVER: u64 = 1 << 30;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSYS: i32 = 38;

#[derive(Default)]
struct Disk {
    image: Image,
    bytes: u64,
    events: Vec<Event>,
}

#[derive(Default)]
struct Disks {
    disks: Vec<Disk>,
    /// How many flushes from now one fails.
    failing_flush: Option<usize>,
}

/// The mounted file system; unmounted when dropped.
pub(crate) struct Fuse {
    directory: PathBuf,
    disks: Arc<Mutex<Disks>>,
}

impl Fuse {
    pub(crate) fn mount(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("powercut", directory, "fuse", flags, options.as_c_str()).unwrap();
        let disks = Arc::new(Mutex::new(Disks::default()));
        thread::spawn({
            let disks = Arc::clone(&disks);
            move || serve(device, &disks)
        });
        Self { directory: directory.to_path_buf(), disks }
    }

    /// A new disk, as a file to put a loop device on.
    pub(crate) fn add_disk(&self, image: Image, bytes: u64) -> PathBuf {
        let mut disks = self.disks.lock().unwrap();
        disks.disks.push(Disk { image, bytes, events: Vec::new() });
        self.directory.join(format!("disk-{}", disks.disks.len() - 1))
    }

    pub(crate) fn marks(&self) -> PathBuf {
        self.directory.join(MARKS)
    }

    /// What is on the newest disk now.
    pub(crate) fn image(&self) -> Image {
        self.disks.lock().unwrap().disks.last().unwrap().image.clone()
    }

    /// What happened to the newest disk since this was last asked.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.disks.lock().unwrap().disks.last_mut().unwrap().events)
    }

    /// Forgets what is on the newest disk, which nothing uses any more.
    pub(crate) fn discard(&self) {
        let mut disks = self.disks.lock().unwrap();
        *disks.disks.last_mut().unwrap() = Disk::default();
    }

    /// Lets the flush fail that follows this many others; `None`: none from now on. Whether the one asked for before failed.
    pub(crate) fn fail_flush(&self, after: Option<usize>) -> bool {
        let mut disks = self.disks.lock().unwrap();
        std::mem::replace(&mut disks.failing_flush, after).is_none()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.directory, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Answers the kernel until the file system is unmounted.
fn serve(mut device: File, disks: &Mutex<Disks>) {
    let mut request = vec![0; LONGEST_WRITE + 4096];
    while let Ok(length) = device.read(&mut request) {
        let request = &request[..length];
        let (opcode, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        let Some(outcome) = answer(&mut disks.lock().unwrap(), opcode, node, &request[40..]) else {
            continue; // the kernel wants no answer
        };
        let (error, body) = match outcome {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + body.len());
        reply.extend_from_slice(&u32::try_from(16 + body.len()).unwrap().to_le_bytes());
        reply.extend_from_slice(&error.to_le_bytes());
        reply.extend_from_slice(&unique.to_le_bytes());
        reply.extend_from_slice(&body);
        let _ = device.write_all(&reply); // the asker may be gone
    }
}

fn answer(disks: &mut Disks, opcode: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
    const LOOKUP: u32 = 1;
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const SETATTR: u32 = 4;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const WRITE: u32 = 16;
    const STATFS: u32 = 17;
    const RELEASE: u32 = 18;
    const FSYNC: u32 = 20;
    const FLUSH: u32 = 25;
    const INIT: u32 = 26;
    const OPENDIR: u32 = 27;
    const RELEASEDIR: u32 = 29;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;
    Some(match opcode {
        FORGET | INTERRUPT | BATCH_FORGET => return None,
        INIT => Ok(init()),
        LOOKUP => lookup(disks, body),
        GETATTR | SETATTR => Ok(words(&[FOREVER, 0]).into_iter().chain(attributes(disks, node)).collect()),
        // Marks must arrive at once, uncached.
        OPEN | OPENDIR => Ok(words(&[0, u64::from(node == MARKS_NODE)])),
        READ => Ok(read(disks, node, u64_at(body, 8), u32_at(body, 16))),
        WRITE => Ok(write(disks, node, u64_at(body, 8), &body[40..])),
        FSYNC => flush(disks, node),
        STATFS => Ok(vec![0; 80]),
        FLUSH | RELEASE | RELEASEDIR => Ok(Vec::new()),
        _ => Err(ENOSYS),
    })
}

fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let mut reply = Vec::new();
    for word in
        [7, 31, 1 << 20, BIG_WRITES | MAX_PAGES, 16 | 12 << 16, u32::try_from(LONGEST_WRITE).unwrap(), 1, 256]
    {
        reply.extend_from_slice(&word.to_le_bytes());
    }
    reply.resize(64, 0);
    reply
}

fn lookup(disks: &Disks, name: &[u8]) -> Result<Vec<u8>, i32> {
    let name = std::str::from_utf8(name).unwrap_or_default().trim_end_matches('\0');
    let node = match name.strip_prefix("disk-").and_then(|number| number.parse::<usize>().ok()) {
        Some(number) if number < disks.disks.len() => FIRST_DISK_NODE + number as u64,
        _ if name == MARKS => MARKS_NODE,
        _ => return Err(ENOENT),
    };
    Ok(words(&[node, 0, FOREVER, FOREVER, 0]).into_iter().chain(attributes(disks, node)).collect())
}

fn attributes(disks: &Disks, node: u64) -> Vec<u8> {
    let bytes = disk_index(node).and_then(|index| disks.disks.get(index)).map_or(0, |disk| disk.bytes);
    let mode: u32 = if node == ROOT_NODE { 0o040_755 } else { 0o100_600 };
    let mut reply = words(&[node, bytes, bytes / 512, 0, 0, 0]);
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        reply.extend_from_slice(&word.to_le_bytes());
    }
    reply
}

fn read(disks: &Disks, node: u64, offset: u64, count: u32) -> Vec<u8> {
    let Some(disk) = disk_index(node).and_then(|index| disks.disks.get(index)) else {
        return Vec::new();
    };
    let count = u64::from(count).min(disk.bytes.saturating_sub(offset));
    let mut bytes = vec![0; usize::try_from(count).unwrap()];
    disk.image.read(offset, &mut bytes);
    bytes
}

fn write(disks: &mut Disks, node: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    if node == MARKS_NODE {
        let marks = String::from_utf8_lossy(data);
        let log = &mut disks.disks.last_mut().unwrap().events;
        log.extend(marks.lines().map(|line| Event::Mark(line.to_owned())));
    } else if let Some(disk) = disk_index(node).and_then(|index| disks.disks.get_mut(index)) {
        disk.image.write(offset, data);
        disk.events.push(Event::Write { offset, data: data.to_vec() });
    }
    words(&[data.len() as u64])
}

fn flush(disks: &mut Disks, node: u64) -> Result<Vec<u8>, i32> {
    if let Some(left) = &mut disks.failing_flush {
        if *left == 0 {
            disks.failing_flush = None;
            return Err(EIO);
        }
        *left -= 1;
    }
    if let Some(disk) = disk_index(node).and_then(|index| disks.disks.get_mut(index)) {
        disk.events.push(Event::Flush);
    }
    Ok(Vec::new())
}

fn disk_index(node: u64) -> Option<usize> {
    usize::try_from(node.checked_sub(FIRST_DISK_NODE)?).ok()
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
