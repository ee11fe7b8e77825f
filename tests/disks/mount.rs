//! The file systems that are tried, made and mounted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct FileSystem {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    mkfs: &'static [&'static str],
    options: &'static str,
}

/// The smallest of each that their `mkfs` make without complaint.
pub(crate) const FILE_SYSTEMS: [FileSystem; 4] = [
    FileSystem {
        name: "ext4",
        bytes: 64 << 20,
        mkfs: &["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
        options: "loop",
    },
    FileSystem { name: "xfs", bytes: 320 << 20, mkfs: &["mkfs.xfs", "-q", "-f", "-K"], options: "loop,nouuid" },
    FileSystem { name: "btrfs", bytes: 160 << 20, mkfs: &["mkfs.btrfs", "-q", "-f", "-K", "-M"], options: "loop" },
    FileSystem { name: "tmpfs", bytes: 16 << 20, mkfs: &[], options: "size=16m" },
];

impl FileSystem {
    /// Whether it is on a disk, of which power cuts can be made.
    pub(crate) fn has_disk(&self) -> bool {
        !self.mkfs.is_empty()
    }

    /// Makes a new one on a disk.
    pub(crate) fn make(&self, disk: &Path) {
        let Some((program, arguments)) = self.mkfs.split_first() else { return };
        let status = Command::new(program).args(arguments).arg(disk).stdout(Stdio::null()).status();
        let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(status.success(), "{program} {arguments:?}");
    }

    /// Mounts what is on the disk, if that can be mounted.
    pub(crate) fn mount(&self, disk: &Path, directory: &Path) -> Option<Mount> {
        std::fs::create_dir_all(directory).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", self.name, "-o", self.options])
            .args([disk, directory])
            .stderr(Stdio::null())
            .status();
        mounted.unwrap().success().then(|| Mount(directory.to_path_buf()))
    }
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn stream(&self) -> PathBuf {
        self.0.join("stream")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
