//! What costs what, and how to choose.
//!
//! Figures beside rivals and beside bare system calls stand in the repository's README; `benches/peers` makes them, each cell a process of its own, the
//! engines in turn, medians of five rounds. This page tells what they mean.
//!
//! # Writing
//!
//! A **`Buffered` put** makes no system call. Its frame is encoded in place into a slot of the STAGING file, 256 KiB that are mapped and stay in the processor's
//! cache; when the put returns, the kernel has it. A full slot is written to the segment by one positional write, the cheapest way into the page cache
//! there is. What remains of a put besides that copy and its checksum: one hash of the key, one look for the shard (no lock, and no count that all
//! processors write), one lock of the shard, one look at the clock, two plain stores for the index, one store that readers look at.
//!
//! Slots are 64 for a stream. Shards that find none, and all shards where the file system is not trusted with a map (anything but ext4, XFS and tmpfs), make one positional write a put: half a microsecond to one and a half more. A slot that stays idle is given to who needs it.
//!
//! A record larger than a slot is written by a call of its own. **`put_batch`** takes each shard's lock once and looks at the clock once. For `Buffered` records that gains
//! some, but less than elsewhere, since a put has no call to save (5.02 against 3.04 million a second at 128 bytes, 1.51 against 1.34 at a kibibyte); for `Synced` ones it is one sync for all.
//!
//! A **`Synced` put** waits for a sync of its shard, shared by all who wait ([group commit](crate::Durability::Synced)). One thread gets one record a sync;
//! many threads get many, since whoever leads the next sync lets those who have just been told come back with their next record first (for some twenty
//! microseconds, and only while that has been worth it). After the third commit of a segment, zeros are written ahead of its frames: a sync of bytes that were written
//! before does not have to note in the file system that they are, and depends on no journal. Every other sync is followed by the question whether the file system
//! still takes changes (see [`testing`](super::testing#real-file-systems)). Shards sync independently, so more shards are more syncs in flight.
//!
//! # Batches in the background
//!
//! A [batching producer](crate::BatchingProducer) beside `put` in a loop, as `cargo bench --bench batching` prints it: records of 128 bytes to four shards, the
//! defaults of both; medians of seven interleaved rounds, on 2 cores and an ext4 virtio disk that others used meanwhile, so take the ratios. In *put and go on* the threads
//! wait for all their handles at the end; in *put and wait*, for each before the next record, with a linger of 0.
//!
//! | | threads | `put`, thousands/s | put and go on | put and wait |
//! | --- | ---: | ---: | ---: | ---: |
//! | `Synced` | 1 | 3.2 | 54x | 1.15x |
//! | | 8 | 6.3 | 23x | 0.56x |
//! | | 64 | 4.7 | 24x | 3.0x |
//! | `Buffered` | 1 | 1,648 | **0.90x** | 0.06x |
//! | | 8 | 1,883 | **0.76x** | 0.03x |
//! | | 64 | 1,868 | **0.50x** | 0.07x |
//!
//! - On a `Synced` stream it is what lets a thread go on while its records become durable: dozens of times as many records, whatever the number of threads.
//!   A thread that waits for each record gains nothing by it, and may lose: a batch syncs the shards that it went to one after the other, where
//!   `put`s of many threads sync them at once.
//! - On a `Buffered` stream it **loses**: a put makes no system call, so there is nothing to share, and copying the record, waking the thread and telling the handle cost
//!   more than the put. There, put; and [`put_batch`](crate::Stream::put_batch) where records come many at a time. What a producer is still
//!   good for there: a caller that must not wait when its shard rolls or its disk is slow.
//!
//! # Choosing
//!
//! | | what it costs | what it buys |
//! | --- | --- | --- |
//! | [`Durability::Synced`](crate::Durability::Synced) | a sync for each group: 0.1 to 5 ms, by the disk | power cuts lose nothing that was acknowledged |
//! | [`flush_interval`](crate::StreamBuilder::flush_interval), [`flush_bytes`](crate::StreamBuilder::flush_bytes) | syncs in the background; a writer that is eight times `flush_bytes` ahead of the disk waits for it | a bound on what a power cut takes of a `Buffered` stream |
//! | [`segment_bytes`](crate::StreamBuilder::segment_bytes) larger | disk in larger steps; more to read at an opening after a kill; retention removes later | fewer rolls: each syncs the full segment and the new one's name, and its shard takes no records meanwhile |
//! | [`first_segment_bytes`](crate::StreamBuilder::first_segment_bytes) larger | disk for each shard that has a record | a busy shard does not roll through 64 KiB, 512 KiB, 4 MiB, 32 MiB first |
//! | a [batching producer](crate::BatchingProducer) | a thread, a copy of each record, some 100 bytes for each handle that is kept | threads that go on while their records become durable |
//! | more shards | some 1 KiB of memory each, 64 KiB of disk each with a record, 256 KiB of the first 64 that are written to at a time | writers that do not meet, syncs in parallel |
//!
//! Past the kernel's limit of dirty pages (a fifth of the memory, usually) every engine converges to what the disk takes.
//!
//! # Reading
//!
//! The **batch form** borrows records from the map. Their checksums are verified once, when the batch is made; stepping through it decodes fields as they are asked for.
//! The **iterator form** gives records that own their share of the map, one reference count each. [`Stream::get`](crate::Stream::get) is one step by the
//! index. By time it is a binary search over segments, then over records.
//!
//! A reader at the tail of a `Buffered` shard writes what is staged to the segment, and then reads it there: what was acknowledged is there for everybody in the
//! process at once. Other processes find it when the background thread has written it, one to two milliseconds later (without that thread: when the
//! slot is full, at a sync, or when somebody in the process reads).
//!
//! A waiting reader sleeps until the next record, and the put that wakes it pays for that: it also writes what is staged, which would take the reader several times as long, whose processor
//! was idle until then. An iterator over one shard that finds sixteen records or more each time it looks naps instead, for at
//! most a quarter of a millisecond, together with all other readers of the stream that do; it is not woken then.
//!
//! So does one that finds any record while others sleep. A put that finds readers asleep wakes one of them, and who is woken wakes two others, so that it makes no difference to the writer
//! how many there are. `cargo bench --bench fanout`, on two processors, records of 1 KiB at `Buffered`, processor time of the writer's thread for a put: with 1, 8 and 32 readers 1.00, 1.02
//! and 1.02 times what it is without, as fast as it goes; 1.2, 1.3 and 1.2 times at 20,000 puts a second in lots of a hundred, which is the waking.
//!
//! # Opening
//!
//! After a clean close no record is read: the manifest and nothing else. After a kill the unsealed segments are read as far as they were written, and what is not known
//! durable is written again and synced, which is most of the time (see [`promises`](super::promises#a14-bounds)).
//!
//! # Checkpoints
//!
//! On a `Buffered` stream a checkpoint takes five short system calls: the file's lock, two reads, a write, the lock again. On a `Synced` one it takes a sync, for which the
//! checkpoints of a consumer wait in turn: checkpoint once a batch. `cargo bench --bench consumers` measures both.
//!
//! # Where the time goes, and where it cannot be saved
//!
//! - The kernel takes bytes the cheaper the more it gets at once: 1.6, 2.9, 4.1, 4.7 GB/s by writes of 16 KiB, 64 KiB, 256 KiB and 1 MiB
//!   (`cargo bench --bench kernel`, ext4, Linux 6.18).
//! - 64 threads that wait for their records are bound by their wake-ups (W4 of `benches/peers`, beside its bare group commit, which is too). In trials that were not
//!   kept, waiters that yield in place of sleeping were slower, and waiters that each wake the next gained a tenth at most.
//! - Two commits in flight on one shard are not worth it. The disk would take them: direct synchronous writes of 4 KiB, 2, 4, 8 and 16 at once, are 2.0, 2.3, 3.2 and 3.9 times as many a second as one
//!   (`cargo bench --bench kernel`). But threads that wait for their records get no more of them than one a sync, and one group for all gives them that: with 8 threads a record
//!   takes 305 us (26,200 a second), where a write and its `fdatasync` take 284. A second commit would only help who comes just behind the start of the first, by half a sync.
//! - A fresh page of the page cache costs the kernel more than the record costs the library: a profile of single puts of 128 bytes
//!   shows 44 % of all time in the kernel's copy alone.
//! - The clock of the system is some 20 to 30 ns of a put. A coarser one would be cheaper, and would let a record arrive before a time that was looked at before it was put.
//! - A roll waits for the disk. Sealing behind the writer's back would take that away; recovery would then have to judge several unsealed segments. Not done.
//! - Random puts to 10,000 shards: the first put of each makes a segment file, with two syncs; with more shards than
//!   [`open_files`](crate::StreamBuilder::open_files), each put opens a file and closes another.
//!
//! # What falls short of what we aim at, and why
//!
//! The aims are ratios to other engines and to bare system calls; the figures are those of the tables in `benches/peers/results`. Instructions are those of `.ci/instructions`, their parts what
//! `callgrind_annotate --inclusive=yes` makes of the same run of its program.
//!
//! | | aimed at | reached | what stands in the way |
//! | --- | --- | --- | --- |
//! | single puts of 128 B | 4 times the best peer | 3.3 (2.5 is the aim at 1 KiB, and 3.3 is reached) | a put is some 1,200 instructions: frame and checksum 300 (the checksum 165), its place in slot and index 140, the shard's lock, room, numbers and handing on 350, the clock 112, the hash of the key 54, the look for the shard and the rest of the call 250. A record of a batch, which shares all but the frame and its place, is 596 |
//! | batches of 128 B, 1 KiB | 1.2 times | 0.93, 0.96 | a frame has 40 bytes and the key (16 here) beside the data, a bare one 24: the kernel is given 184 bytes in place of 152, and that is what a batch costs (0.92 and 0.83 of a bare `pwrite`) |
//! | 8 threads on 16 shards | 1.6 times one thread | 1.03 at 128 B, 0.87 at 1 KiB | two processors of this machine do not write more than one: sixteen bare staging logs take 0.96 and 0.99 times what one of them takes from one thread. The memory, and the kernel's page cache, are the limit |
//! | durable, 1 and 64 threads | 1 and 3 times | 0.86, 1.3 | one thread waits for the disk (1.07 of the bare group commit); 64 wait for their wake-ups (0.75 of it) |
//! | scans | 1.5 times | 0.95, 1.2, 0.68 at 128 B, 1 KiB, 10 KiB | every checksum is verified, which the best peer at 10 KiB does not do: 1.03, 1.2, 1.4 of a bare map with checksums |
//! | point reads of 1 KiB | 2 times | 1.6 | a read is 1,963 instructions: 609 the checksum, 177 the rest of the frame, 114 whether it is expired by the clock, some 460 finding segment and place, the rest handing out a record that outlives the call |
//! | append to visible, spinning | 1.5 us | 3.1 us | the reader writes what is staged to the segment, one call, and reads it there: 1.8 us by itself, hot |
//! | the same, parked | 1.3 times a bare wake-up | 2.4 times (14 us of 5.9; the slowest of a hundred 83 of 62) | what is cold, in trials that are not kept: behind a pause of 200 us, a put by itself takes 1.2 to 1.9 us in place of 0.3, and writing and reading the record 4.7 in place of 1.8. A bare futex with one `pwrite` behind it takes 9 to 11. The put writes it now, not the reader, which took 15 us and 1.4 ms |
//! | the slowest of a thousand puts | the best peer's | a third (107 us of 34) | it writes a slot of 256 KiB at once, as the bare staging does (101 us). Slots of 64 KiB would take 25 us, four times as often, at 2.9 in place of 4.1 GB/s: a sixth of the speed at 1 KiB |
//! | opening after a close | 2 ms | 3.3 ms | no record is read: it is three syncs, one after the other, which make the new incarnation durable, of 0.3 to 0.6 ms each on this disk (`strace -T -e trace=fsync,fdatasync`) |
//! | opening after a kill | 3 GB/s | 0.03 to 0.35 GB/s | what is not known durable is written again and synced before it is shown: the disk's speed, which also has to finish what it was writing when the process died. To believe the page cache instead would let a failed write-back pass for a success |
//! | puts to 10,000 shards at random | half of those to one | 0.003 M/s, a three-hundredth | the first put of a shard makes its segment, with two syncs; behind that, each put opens a file and closes another (some 20 us): with one file a shard, half is out of reach |
//! | a writer beside 1, 8, 32 readers | 0.9, 0.9, 0.8 of its processor time | 0.98, 0.79, 0.59 | readers that run at full speed share caches and memory with it, on two processors; the figure varies by a third between runs. Paced, or by `cargo bench --bench fanout` (above), it is 1.0 |
//!
//! Tried for single puts and not kept: taking the time by `clock_gettime` without `SystemTime` (50 instructions less, by a crate that cannot be counted under callgrind); a coarse clock (above).
//!
//! # Many shards
//!
//! A put to one shard costs the same whatever others there are; puts to shards at random do not, once there are more of them than slots to stage in: from 65 on most make a call for each
//! record, and beyond [`open_files`](crate::StreamBuilder::open_files) open a file for it. A put costs the same whatever the shard holds, as long as the kernel has free memory for its pages; a random get
//! is a look into the map, until the shard is larger than what the kernel keeps in memory: then it waits for the disk. `cargo bench --bench curves -- --gib 20 --chart curves.svg`, processor
//! time of the calling thread for a record of 1 KiB, the kernel's part included, two cores beside other work, medians of 15 pieces:
//!
#![doc = include_str!("curves.svg")]
//!
//! | shards | 1 | 16 | 64 | 256 | 1,024 | 4,096 | 10,000 |
//! | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
//! | put to one of them, us | 0.7 | 0.8 | 0.6 | 0.7 | 0.7 | 0.7 | 0.7 |
//! | put at random, us | 0.7 | 0.8 | 1.4 | 4.0 | 15 | 19 | 20 |
//!
//! | shard holds | 1 MiB | 16 MiB | 256 MiB | 1 GiB | 4 GiB | 20 GiB |
//! | --- | ---: | ---: | ---: | ---: | ---: | ---: |
//! | put, us | 0.7 | 0.7 | 0.7 | 0.7 | 0.7 | 0.9 |
//! | get at random, us | 0.4 | 1.3 | 1.3 | 2.1 | 24 | 232 |
//!
//! The machine has 23 GiB, of which the kernel gave the cold half back to its host meanwhile: that is what the gets from 4 GiB on show. A split or a merge is 6 to 28 ms at each of these counts of shards, which
//! is its syncs; an opening after a close 8 to 30 ms at each of these sizes, by the wall, beside a disk that is still busy with what was closed.
//!
//! # Guarding it
//!
//! `cargo bench` measures each path with its bare rival beside it. `.ci/instructions` counts the instructions of the hot paths under callgrind, which is the same on a noisy
//! machine, and `.ci/instructions --check` compares them with `benches/instructions.txt`.
