//! Paths, names and inodes: the simulated file system without its faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::contents::Contents;
use super::crash::{Crash, Fates};
use super::directory::Directory;
use crate::storage::DirEntry;

/// Names a file or directory whatever its path; never used again.
pub(super) type InodeId = u64;

const ROOT: InodeId = 0;

#[derive(Debug)]
pub(super) struct Tree {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    capacity: Option<u64>,
    /// Names taken away since the last sweep.
    unlinked: usize,
}

#[derive(Debug)]
struct Inode {
    node: Node,
    /// How many names it has at present.
    links: usize,
    /// How many open files use it.
    handles: usize,
}

#[derive(Debug)]
enum Node {
    File(Contents),
    Directory(Directory),
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self::without_inodes(None, ROOT + 1);
        tree.insert(ROOT, Node::Directory(Directory::default()));
        tree
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Bytes taken by files that have a name or a user.
    pub(super) fn used_bytes(&self) -> u64 {
        let used = |inode: &Inode| match &inode.node {
            Node::File(file) if inode.links > 0 || inode.is_in_use() => file.used_bytes() as u64,
            _ => 0,
        };
        self.inodes.values().map(used).sum()
    }

    /// How many more bytes fit.
    pub(super) fn room(&self) -> u64 {
        match self.capacity {
            Some(capacity) => capacity.saturating_sub(self.used_bytes()),
            None => u64::MAX,
        }
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.create(path, Node::Directory(Directory::default()))?;
        Ok(())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<InodeId> {
        self.create(path, Node::File(Contents::durable(&[])))
    }

    /// The file or directory at a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut inode = ROOT;
        for name in names(path)? {
            inode = self.child(inode, name)?;
        }
        Ok(inode)
    }

    pub(super) fn file(&self, inode: InodeId) -> io::Result<&Contents> {
        match self.node(inode)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, inode: InodeId) -> io::Result<&mut Contents> {
        match self.inodes.get_mut(&inode).map(|inode| &mut inode.node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn directory(&self, inode: InodeId) -> io::Result<&Directory> {
        match self.node(inode)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn directory_mut(&mut self, inode: InodeId) -> io::Result<&mut Directory> {
        match self.inodes.get_mut(&inode).map(|inode| &mut inode.node) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Keeps a file alive without a name, until [`close`](Self::close).
    pub(super) fn open(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.handles += 1;
        }
    }

    pub(super) fn close(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let inode = self.child(parent, name)?;
        self.file(inode)?;
        self.directory_mut(parent)?.unlink(name);
        self.drop_link(inode);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let inode = self.child(parent, name)?;
        if !self.directory(inode)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.directory_mut(parent)?.unlink(name);
        self.drop_link(inode);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (old_parent, old_name) = self.parent(from)?;
        let inode = self.child(old_parent, old_name)?;
        let (new_parent, new_name) = self.parent(to)?;
        let replaced = self.directory(new_parent)?.get(new_name);
        if replaced == Some(inode) {
            return Ok(());
        }
        if self.leads_through(to, inode)? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(replaced) = replaced {
            self.check_replaceable(replaced, inode)?;
        }
        if old_parent == new_parent {
            self.directory_mut(new_parent)?.rename(old_name, new_name, inode);
        } else {
            // Two changes, each made durable by a sync of its own directory.
            self.directory_mut(new_parent)?.link(new_name, inode);
            self.directory_mut(old_parent)?.unlink(old_name);
        }
        if let Some(replaced) = replaced {
            self.drop_link(replaced);
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = self.directory(self.find(path)?)?;
        let entry = |(name, inode): (&str, InodeId)| DirEntry {
            name: name.to_owned(),
            is_dir: self.directory(inode).is_ok(),
        };
        Ok(directory.entries().map(entry).collect())
    }

    #[cfg(test)]
    pub(super) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// What the next program finds.
    pub(super) fn after(&self, crash: Crash) -> Self {
        match crash {
            Crash::ProcessKilled => self.after_kill(),
            Crash::PowerLost { seed } => self.after_power_loss(Fates::new(seed)),
        }
    }

    fn after_kill(&self) -> Self {
        let mut survivor = Self::without_inodes(self.capacity, self.next_inode);
        for inode in self.reachable() {
            if let Some(before) = self.inodes.get(&inode) {
                let node = match &before.node {
                    Node::File(file) => Node::File(file.after_kill()),
                    Node::Directory(directory) => Node::Directory(directory.clone()),
                };
                survivor.insert(inode, node).links = before.links;
            }
        }
        survivor
    }

    fn after_power_loss(&self, fates: Fates) -> Self {
        let mut survivor = Self::without_inodes(self.capacity, self.next_inode);
        survivor.insert(ROOT, Node::Directory(Directory::default()));
        let mut pending = vec![ROOT];
        while let Some(inode) = pending.pop() {
            let Ok(directory) = self.directory(inode) else {
                continue;
            };
            let mut entries = directory.after_power_loss(&mut fates.of_directory(inode));
            entries.retain(|_, child| {
                let is_dir = self.directory(*child).is_ok();
                // A directory is never in two places: a move of which only one half survived leaves
                // it where it is met first.
                if is_dir && survivor.inodes.contains_key(child) {
                    return false;
                }
                if is_dir {
                    pending.push(*child);
                }
                survivor.add_survivor(*child, self, fates)
            });
            if let Ok(survived) = survivor.directory_mut(inode) {
                *survived = Directory::durable(entries);
            }
        }
        survivor
    }

    /// Gives a file or directory that survived one more name.
    fn add_survivor(&mut self, inode: InodeId, before: &Self, fates: Fates) -> bool {
        if !self.inodes.contains_key(&inode) {
            let node = match before.node(inode) {
                Ok(Node::File(file)) => Node::File(file.after_power_loss(&mut fates.of_file(inode))),
                Ok(Node::Directory(_)) => Node::Directory(Directory::default()),
                Err(_) => return false,
            };
            self.insert(inode, node);
        }
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.links += 1;
        }
        true
    }

    fn without_inodes(capacity: Option<u64>, next_inode: InodeId) -> Self {
        Self { inodes: BTreeMap::new(), next_inode, capacity, unlinked: 0 }
    }

    fn insert(&mut self, inode: InodeId, node: Node) -> &mut Inode {
        self.inodes.entry(inode).or_insert(Inode { node, links: 0, handles: 0 })
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<InodeId> {
        if self.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (parent, name) = self.parent(path)?;
        self.directory(parent)?;
        if self.room() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.insert(inode, node).links = 1;
        self.directory_mut(parent)?.link(name, inode);
        Ok(inode)
    }

    fn node(&self, inode: InodeId) -> io::Result<&Node> {
        match self.inodes.get(&inode) {
            Some(inode) => Ok(&inode.node),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn child(&self, parent: InodeId, name: &str) -> io::Result<InodeId> {
        let found = self.directory(parent)?.get(name);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory that a path is in, and its name there.
    fn parent<'path>(&self, path: &'path Path) -> io::Result<(InodeId, &'path str)> {
        let mut names = names(path)?;
        let Some(name) = names.pop() else {
            return Err(io::ErrorKind::ResourceBusy.into()); // the root
        };
        let mut inode = ROOT;
        for name in names {
            inode = self.child(inode, name)?;
        }
        self.directory(inode)?;
        Ok((inode, name))
    }

    /// Whether a path's parent is an inode, or inside of it.
    fn leads_through(&self, path: &Path, inode: InodeId) -> io::Result<bool> {
        let mut names = names(path)?;
        names.pop();
        let mut reached = ROOT;
        for name in names {
            reached = self.child(reached, name)?;
            if reached == inode {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn check_replaceable(&self, replaced: InodeId, by: InodeId) -> io::Result<()> {
        match (self.node(replaced)?, self.node(by)?) {
            (Node::File(_), Node::File(_)) => Ok(()),
            (Node::File(_), Node::Directory(_)) => Err(io::ErrorKind::NotADirectory.into()),
            (Node::Directory(_), Node::File(_)) => Err(io::ErrorKind::IsADirectory.into()),
            (Node::Directory(old), Node::Directory(_)) if old.is_empty() => Ok(()),
            _ => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
    }

    fn drop_link(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.links = inode.links.saturating_sub(1);
        }
        self.unlinked += 1;
        // Seldom enough that the cost of a sweep is spread over many removals.
        if self.unlinked > 64 + self.inodes.len() / 2 {
            self.sweep();
        }
    }

    /// Forgets what has no user and that no crash can bring back.
    fn sweep(&mut self) {
        let reachable = self.reachable();
        self.inodes.retain(|id, inode| inode.is_in_use() || reachable.contains(id));
        self.unlinked = 0;
    }

    /// Everything that has a name, or may have one after power loss.
    fn reachable(&self) -> BTreeSet<InodeId> {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut pending = vec![ROOT];
        while let Some(inode) = pending.pop() {
            if let Ok(directory) = self.directory(inode) {
                pending.extend(directory.references().filter(|child| reachable.insert(*child)));
            }
        }
        reachable
    }
}

impl Inode {
    fn is_in_use(&self) -> bool {
        self.handles > 0 || matches!(&self.node, Node::File(file) if file.is_mapped())
    }
}

/// The names of a path from the root down; absolute and relative paths mean the same.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidFilename)?);
            }
            Component::ParentDir => {
                names.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}
