//! What the library promises, each promise with the tests that can fail for it.
//!
//! The tests are named as `file::test`, below `tests/`; a test of the repository holds that they exist. How they work is told in
//! [`testing`](super::testing).
//!
//! # A0. What is assumed of the platform
//!
//! 1. When `fdatasync` or `fsync` returns success, what was written before it survives a power cut: the drive honours flushes. One exception is known, and
//!    looked for after every sync that may wait for a journal: a file system that is just giving up (see [`testing`](super::testing#real-file-systems)).
//!    On XFS that takes for granted that nobody clones (`reflink`) the files of a stream while it is written to; a store into a STAGING file that was cloned could
//!    also find no room, which is a signal. (On Btrfs, where snapshots do that, nothing is staged.)
//! 2. A write changes no byte outside its range, even if the power goes in the middle of it.
//! 3. Nothing else. Sectors may tear at 512 bytes; what was not synced may reach the disk in any order or not at all; a file's size and
//!    a directory's entries are persisted by their own syncs only, in any order.
//! 4. One Linux kernel and a local file system: ext4, XFS, Btrfs; tmpfs for tests. Nothing is promised on network file systems.
//!
//! The simulated disk gives exactly this and no more, so every test on it is a test of these assumptions:
//! `crash/power.rs::synced_streams_survive_a_cut_at_every_operation`.
//!
//! # A1. Two levels of durability
//!
//! | level | the acknowledgement means | survives | may lose |
//! | --- | --- | --- | --- |
//! | [`Synced`](crate::Durability::Synced), the default | the record, every record before it in its shard, and everything needed to find them were covered by a sync that returned success | kill, panic, OOM killer, kernel crash, power cut | nothing |
//! | [`Buffered`](crate::Durability::Buffered) | the bytes are in memory that the kernel keeps: the page cache of a segment, or of the STAGING file | kill, panic, OOM killer; a power cut once a later flush has covered it | a *suffix* of a shard at a kernel crash or power cut |
//!
//! No `Synced` put is acknowledged on a timer. A [`close`](crate::Stream::close) that is answered with success made everything durable, whichever handle asked.
//!
//! Tests: `crash/power.rs::synced_streams_survive_a_cut_at_every_operation`, `crash/power.rs::buffered_streams_survive_a_cut_at_every_operation`,
//! `crash/threads.rs::what_threads_were_told_survives_a_cut`, `process/kill.rs::kill_nine_loses_nothing_synced`,
//! `process/kill.rs::kill_nine_loses_nothing_buffered`, `api/durability.rs::a_synced_put_costs_one_sync_and_survives_power_loss`,
//! `api/open.rs::a_close_that_failed_is_told_to_everybody_who_closes`,
//! `concurrency/main.rs::a_group_is_acknowledged_when_it_is_durable_and_nobody_is_forgotten`; what was staged and not yet written:
//! `crash/opening.rs::what_was_staged_is_recovered_whenever_the_recovery_dies`, `crash/opening.rs::what_cannot_be_written_stays_staged`,
//! `crash/opening.rs::a_staging_file_of_another_life_is_ignored`, `crash/repair.rs::what_was_staged_is_salvaged_and_kept_by_a_repair`.
//!
//! # A2. After any crash
//!
//! Each shard holds a contiguous prefix of what was appended to it, in order, bit for bit, which contains every record that was
//! acknowledged at a level that the crash had to spare. A record whose append was not acknowledged may or may not be there. A batch is
//! there whole or not at all, per shard.
//!
//! Tests: `crash/power.rs::every_short_history_survives_a_cut_at_every_operation`, `crash/threads.rs::what_threads_were_told_survives_a_cut`,
//! `model.rs::a_stream_does_what_the_model_predicts`.
//!
//! # A3. Order
//!
//! One total order a shard, by dense sequence numbers. If one append returned before another began, its number is lower. For one partition
//! key this holds through every split and merge. Appends, reads and looks at the tail of a shard are linearizable.
//!
//! Tests: `api/producers.rs::synced_writers_and_readers_agree`, `api/producers.rs::a_writer_reads_its_own_writes`,
//! `api/reshard.rs::order_holds_for_one_key_through_many_reshards`, through batches in the background
//! `api/batching.rs::order_per_key_holds_through_batches_splits_and_merges`, `api/linearizable.rs::histories_of_threads_are_linearizable`.
//!
//! # A4. A sequence number that anybody has seen never names other bytes
//!
//! Not after a crash, a restart or a repair. Where a power cut takes an unsynced tail of a `Buffered` stream that readers saw, its numbers are
//! given again, and the records that take them carry a higher [incarnation](crate::Record::incarnation): number and incarnation together name
//! a record for all time. So it is with what [`include_unsynced`](crate::ShardIterator::include_unsynced) shows of a `Synced` one.
//!
//! Tests: `crash/power.rs::buffered_streams_survive_a_cut_at_every_operation` (its ledger remembers every place that was ever acknowledged or
//! shown), `crash/repair.rs::every_kind_of_damage_is_mended_and_costs_only_what_it_hit`.
//!
//! # A5. What a reader may see
//!
//! A reader of a `Synced` stream sees only what no crash can take back; it does not change until retention removes it. The unsynced tail is shown on
//! a `Buffered` stream, or where [`include_unsynced`](crate::ShardIterator::include_unsynced) asks for it: to readers of the writer's process at once, to other processes when
//! it is written to its segment, about a millisecond later. Opening makes what it found durable before the
//! first read is served.
//!
//! Tests: `concurrency/main.rs::readers_see_a_durable_prefix`, `crash/threads.rs::what_threads_were_told_survives_a_cut`,
//! `crash/faults.rs::what_is_shown_after_a_failed_sync_survives_power_loss`, `api/read_only.rs::a_reader_of_a_synced_stream_sees_durable_records_only`,
//! `api/read_only.rs::a_reader_sees_a_buffered_put_soon_after_it_is_acknowledged`, `api/iterators.rs::the_unsynced_tail_is_shown_on_request_only`,
//! `api/iterators.rs::a_reader_of_a_buffered_stream_can_ask_for_durable_records_only`, `api/durability.rs::a_buffered_put_syncs_nothing_until_it_is_asked_to`.
//!
//! # A6. A failed append has an unknown outcome
//!
//! The record may turn up later; the error says so. After a failed write or sync the shard takes no append until the stream is opened again
//! ([`Error::ShardFailed`](crate::Error::ShardFailed)), everybody who waited on that sync gets the error, and reads of durable data go on. Where nothing was tried
//! of the segment yet, as with too many open files, it is an [`Error::Io`](crate::Error::Io), and the shard goes on: what a `Synced` put
//! was refused with then is durable with the next commit. (A commit that only tasks wait for ends the shard, since nobody would try again.)
//!
//! A file system that gives up for good (its journal cannot be written) may answer a store into the STAGING file with a signal, as it would for any map: a `Buffered` put then ends
//! the process, before it is acknowledged. What was acknowledged before survives as far as that file system lets it.
//!
//! Tests: `crash/faults.rs::synced_streams_survive_every_failing_operation`, `crash/faults.rs::buffered_streams_survive_every_failing_operation`,
//! `crash/faults.rs::rarer_and_lasting_failures_lose_nothing_either`, `crash/faults.rs::a_failed_sync_is_told_to_all_its_waiters`,
//! `crash/directed.rs::a_shard_whose_file_cannot_be_opened_again_goes_on`, `process/syscalls.rs::every_system_call_fails`,
//! `concurrency/main.rs::a_failed_sync_reaches_everybody`.
//!
//! # A7. Corruption
//!
//! No read returns a byte that did not pass its checksum. Damage to what was durable is [`Error::Corrupt`](crate::Error::Corrupt), which names file, offset, shard
//! and sequence numbers; it is never taken for the end of the log, never skipped, never mended by deleting. Reading the sound parts
//! ([`salvage`](crate::salvage)) and making the stream whole again ([`repair`](crate::repair)) are calls of their own; a repair copies damaged files
//! aside before it replaces them, keeps every sound record under its number, and what is lost is said:
//! [`Error::Lost`](crate::Error::Lost).
//!
//! Tests: `crash/damage.rs::every_changed_byte_of_a_closed_stream_is_right_or_refused`, `crash/damage.rs::files_of_another_length_or_place_are_right_or_refused`,
//! `crash/damage.rs::damage_to_what_was_durable_is_refused_after_a_crash_too`, `crash/damage.rs::damage_is_located`,
//! of consumers, queues and windows `crash/damage/kept.rs::every_changed_byte_beside_the_log_is_right_or_refused`,
//! `crash/damage/kept.rs::files_beside_the_log_of_another_length_are_right_or_refused`, `crash/damage/kept.rs::a_consumers_file_that_was_cut_is_mended`,
//! beside a writer `crash/damage.rs::a_follower_that_comes_to_damage_is_told`, `api/read_only.rs::a_busy_writer_is_never_taken_for_damage`,
//! `crash/repair.rs::every_kind_of_damage_is_mended_and_costs_only_what_it_hit`, `crash/repair.rs::a_repair_that_is_cut_short_is_run_again`.
//!
//! The STAGING file holds nothing durable: a slot that is damaged gives up its records from the damage on, as a tail that was not synced
//! (`crash/opening.rs::a_damaged_slot_gives_up_its_records_from_the_damage_on`).
//!
//! One tail that was not synced is taken for damage: where records whose *data* imitate frames, to the number that they would have, by the thousand and each a
//! megabyte long, are torn. Which of them is a frame would take too long to find out, and a silent cut would be the worse mistake; a repair cuts it
//! (`crash/opening.rs::a_tail_that_imitates_too_many_frames_is_refused_and_cut_by_a_repair`).
//!
//! What is not seen: bytes between a sealed segment's index and its footer, which hold nothing and are never read; and the loss of the last
//! records of an open shard together with the WATERMARK slot that vouches for them, which is then indistinguishable from a write that was cut short. Nor the
//! loss of a whole file of a consumer or a queue, or of windows that a shard left: nothing else says that there was one.
//!
//! # A8. Retention
//!
//! It removes whole segments from the old end only. A reader behind the new start gets [`Error::Trimmed`](crate::Error::Trimmed) with the earliest number
//! left; not a wrong record, not a silent jump, not a signal. Who goes on from parents to a child is behind its start, too, where its front is gone, and where the parents expired meanwhile: `Records`
//! says so also of shards that expired altogether in between, workers, event sources and pipelines do not.
//!
//! Tests: `api/retention.rs::a_reader_of_the_whole_is_told_what_it_missed_of_the_children`, `api/groups.rs::a_consumer_is_told_what_it_missed_of_a_child`,
//! `api/groups.rs::what_a_child_lost_is_told_where_its_parent_expired`, `api/pipeline.rs::a_pipeline_is_told_what_it_missed_of_a_child_of_a_shard_that_expired`,
//! `api/pipeline.rs::a_pipeline_is_told_what_it_missed_of_a_child`, `api/retention.rs::records_expire_by_their_age`, `api/retention.rs::a_reader_goes_on_in_the_segment_it_holds`,
//! `process/moved.rs::records_of_a_trimmed_segment_stay_readable`, `api/read_only.rs::a_reader_of_a_shard_that_expired_is_told_what_it_missed`,
//! `crash/opening.rs::a_reader_beside_retention_is_told_what_is_trimmed`,
//! `crash/directed.rs::segments_are_not_removed_on_the_word_of_a_manifest_that_may_be_lost`,
//! `crash/directed.rs::a_budget_that_is_enforced_and_cut_short_removes_nothing_more`.
//!
//! # A9. Split and merge
//!
//! They take effect all at once and survive a crash at any point as "before" or "after". Parents are sealed and durable before a child takes a record. A
//! child of a merge is read after *both* parents.
//!
//! Tests: `crash/power.rs::every_short_history_survives_a_cut_at_every_operation`, `crash/faults.rs::a_full_disk_refuses_a_split_and_keeps_the_parent`,
//! `concurrency/main.rs::rolls_and_splits_lose_nothing`, `api/reshard.rs::producers_and_readers_go_on_through_reshards`,
//! on demand `api/capacity.rs::shards_follow_the_load`, `api/capacity.rs::a_hot_key_gets_a_shard_of_its_own`,
//! `api/background.rs::a_hot_shard_is_split_by_the_thread`.
//!
//! # A10. Checkpoints
//!
//! A checkpoint that was acknowledged stays, at the level of its stream: on a [`Synced`](crate::Durability::Synced) one through a power cut, on a
//! [`Buffered`](crate::Durability::Buffered) one through the death of the process, and through a power cut after the next flush by a process that has the consumer open. An older one that
//! was durable is never lost with a newer one that is cut short. Who takes a shard, resets or deletes a consumer, is told when that is durable,
//! whatever the level.
//!
//! It is never ahead of the data. On a `Synced` stream its record is durable before it is. On a `Buffered` stream a power cut may keep the
//! position and take the record: reading then goes on where the tail was cut, and gives every record that took the place of a lost one. A position beyond
//! the tail is [`Error::BeyondTail`](crate::Error::BeyondTail), one before the last is
//! [`Error::BehindCheckpoint`](crate::Error::BehindCheckpoint), never a silent reset.
//!
//! Only the lease that is in force moves a position, whichever processes and threads compete: any other gets
//! [`Error::LeaseLost`](crate::Error::LeaseLost), and nothing is changed. Epochs rise by every change of hands, also through power cuts.
//!
//! Tests: `crash/consumers.rs::synced_consumers_survive_a_cut_at_every_operation`, `crash/consumers.rs::buffered_consumers_survive_a_cut_at_every_operation`,
//! `crash/consumers.rs::consumers_survive_every_failing_operation`, `crash/consumers.rs::a_position_behind_a_lost_tail_goes_on_where_the_tail_was_cut`,
//! `crash/consumers.rs::a_consumer_whose_maker_died_stays_once_somebody_uses_it`, `crash/consumers.rs::a_slot_that_was_cut_short_is_no_damage`,
//! `crash/consumers.rs::a_checkpoint_makes_its_record_durable_first`, `crash/consumers.rs::what_another_process_may_have_acknowledged_is_not_overwritten`,
//! `process/consumers.rs::a_consumer_of_killed_processes_keeps_what_it_acknowledged`, `api/consumers.rs::a_checkpoint_under_an_old_epoch_is_refused_and_changes_nothing`,
//! `api/consumers.rs::a_reader_that_does_not_see_the_tail_yet_does_not_give_what_is_done`, `api/consumers.rs::damage_of_every_copy_is_told_and_mended_by_a_repair`.
//!
//! # A11. One writer
//!
//! A second writable opening of a directory, by this process or another, fails at once with [`Error::Locked`](crate::Error::Locked). Readers in other processes are
//! read-only and say so. The lock is on the LOCK file and on the directory, so deleting the file lets nobody in. A writer works from the directory
//! that it opened: moved or replaced under it, it goes on where its files are, and touches nothing that got their old name. A copy of a handle
//! in a forked process is a closed one: it changes nothing. (A process made by a bare `clone` call, behind the C library's back, is
//! only seen when the copy is closed or dropped.)
//!
//! Tests: `process/lock.rs::a_second_process_is_refused`, `process/lock.rs::the_lock_dies_with_its_process`,
//! `process/lock.rs::of_threads_that_open_at_once_one_wins`, `process/lock.rs::a_deleted_lock_file_lets_nobody_in`,
//! `process/moved.rs::a_moved_stream_is_written_where_it_is_now`, `process/moved.rs::a_follower_of_a_deleted_or_moved_stream_is_told`,
//! `process/fork.rs::a_forks_copy_changes_nothing`, `process/fork.rs::a_forks_copy_is_closed`,
//! `process/fork.rs::a_forks_copy_of_an_iterator_writes_nothing`, `api/open.rs::a_second_writer_is_locked_out`, `api/read_only.rs::a_reader_refuses_to_write`.
//!
//! # A12. A full disk
//!
//! It gives a typed error ([`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull)), no signal and no damage; the stream stays readable, and goes on after room
//! is made.
//!
//! Tests: `crash/faults.rs::a_full_disk_refuses_and_recovers_without_reopening`, `crash/faults.rs::a_full_disk_refuses_every_change_and_then_allows_it`,
//! `process/limits.rs::files_that_may_not_grow_are_an_error_and_no_signal`; on ext4, XFS, Btrfs and tmpfs `.ci/disks`.
//!
//! # A13. The clock
//!
//! Arrival times in a shard never go back, whatever the clock does. A clock that leaps past the retention period, and by more than a second, deletes nothing until a second reading,
//! taken at least a second later by the monotonic clock, agrees; the first reading after an opening counts as such a leap, since nobody knows what the
//! clock did before. Until then a leap hides records from those who look for them, and from nobody who keeps how far he came: a consumer and a queue pass, for good,
//! only what is gone for good, or expired by a time that is believed.
//!
//! Tests: `api/retention.rs::a_leap_of_the_clock_deletes_nothing`, `api/retention.rs::a_leap_past_a_short_period_deletes_nothing_at_once`, `api/clock.rs::any_time_may_follow_any_other` (before 1970 and at the integer's edges, too),
//! `api/clock.rs::no_leap_deletes_at_once`, `api/clock.rs::a_clock_that_leapt_before_the_opening_deletes_nothing_at_the_first_look`,
//! `api/clock.rs::a_leap_hides_nothing_for_good`, `api/clock.rs::a_clock_that_goes_back_deletes_nothing`, `api/clock.rs::a_leap_makes_no_queue_forget_anything`,
//! `api/clock.rs::a_leap_makes_no_consumer_skip_anything`.
//!
//! # A14. Bounds
//!
//! Nothing in a file makes the library allocate, loop, recurse or panic without bound. Recovery reads unsealed segments fully and sealed ones not at all, so
//! the time to open is bounded by the former and by the number of shards, not by the size of the store.
//!
//! Tests: `api/open.rs::an_opening_reads_no_more_for_more_that_is_sealed`, `process/limits.rs::lengths_and_counts_in_files_take_no_memory`, `fuzz_corpus.rs::decode`, `fuzz_corpus.rs::recover_segment`, `fuzz_corpus.rs::operations`, `fuzz_corpus.rs::repair`; measured by
//! `cargo bench --bench scale`.
//!
//! # A15. A batch of a producer is appended once
//!
//! A [`Producer`](crate::Producer) that puts its last batch again, in this process or in the next after any crash that the first time survived, is given the receipts of the
//! first time, and of the records only those are appended that are not there: through roll, split, merge, clean close, kill and power cut. When
//! [`Stream::producer`](crate::Stream::producer) returns, no earlier handle of that name appends anything any more. Remembered is the last batch, as long as its records are kept.
//!
//! What is read to find out does not grow with the log. Damage to what a segment says of producers is [`Error::Corrupt`](crate::Error::Corrupt); a repair gathers it from the records
//! again.
//!
//! Tests: `crash/producers.rs::batches_are_there_once_after_a_power_cut_at_every_operation`, `crash/producers.rs::batches_are_there_once_after_a_kill_at_every_operation`,
//! `crash/producers.rs::batches_are_there_once_after_a_failure_at_every_operation`, `process/producers.rs::batches_are_there_once_after_kills_synced`,
//! `process/producers.rs::batches_are_there_once_after_kills_buffered`, `api/idempotence.rs::a_repeat_is_answered_through_splits_and_merges`,
//! `api/idempotence.rs::a_fence_holds_against_a_put_that_is_under_way`, `api/idempotence.rs::what_is_read_does_not_grow_with_the_log`,
//! `api/idempotence.rs::a_batch_whose_records_an_ancestor_keeps_is_remembered`, `api/idempotence.rs::an_opening_remembers_what_there_is_room_for`,
//! `crash/repair.rs::every_kind_of_damage_is_mended_and_costs_only_what_it_hit`.
//!
//! # A16. Conditions
//!
//! An append that names a sequence number ([`expect_next`](crate::PutOptions::expect_next)) or a fencing token ([`fencing_token`](crate::PutOptions::fencing_token)) is appended only if that is the
//! shard's, looked at in the same step; else nothing of it is. Of a batch with a token, no shard takes its part if one of them would refuse when the batch comes; where one is
//! fenced just then, it takes nothing of the batch, and others may have taken their part. A token is durable when [`Stream::fence_shard`](crate::Stream::fence_shard) returns, never falls, and
//! goes to the children of the shard.
//!
//! Tests: `api/fencing.rs::only_the_token_of_the_shard_is_accepted`, `api/fencing.rs::children_keep_the_token`,
//! `api/fencing.rs::a_batch_is_appended_on_a_condition_or_not_at_all`, `api/fencing.rs::a_batch_that_one_shard_refuses_for_its_token_is_taken_by_none`.
//!
//! # A17. From stream to stream
//!
//! A [`Pipeline`](crate::Pipeline) that is killed, or loses power, anywhere, and is started again leaves the output that it would have left otherwise: each record of the input is
//! made something of once, in the order of its key, through splits and merges of both streams. What a power cut takes from the input, nothing was made of.
//!
//! Tests: `crash/pipeline.rs::output_is_as_if_the_power_had_stayed`, `crash/pipeline.rs::output_of_buffered_streams_is_as_if_the_power_had_stayed`,
//! `crash/pipeline.rs::output_is_as_if_nothing_had_failed`,
//! `api/pipeline.rs::a_shard_that_retention_overtook_keeps_no_other_waiting_and_goes_on_after_a_reset`,
//! `api/pipeline.rs::the_producer_of_a_shard_that_an_earlier_life_finished_is_forgotten`, `api/pipeline.rs::an_end_that_a_power_cut_undid_is_none`,
//! `api/pipeline.rs::a_batch_that_expires_before_it_is_repeated_is_repeated_whole`,
//! `api/pipeline.rs::the_rest_of_a_shard_that_expired_does_not_come_behind_what_follows_it`,
//! `api/pipeline.rs::a_batch_of_which_a_part_has_expired_is_passed_and_nothing_of_it_put_twice`,
//! `api/pipeline.rs::a_batch_of_which_records_are_lost_is_passed_and_nothing_of_it_put_twice`; the example `exactly_once` kills real processes.
//!
//! # A18. Groups
//!
//! Workers of one consumer, in threads and in processes, share its shards by leases. No record is skipped, ever: a position moves only past records that
//! were given to somebody. None is given under a live lease after it was checkpointed; what was given and not checkpointed when a shard changed
//! hands comes again. A shard is given only when all of its parents were finished, both of a merge. The shards of a dead worker move within its
//! lease time, measured by the monotonic clock of each observer, so that no leap of a wall clock matters. The checkpoint of a worker that lost its
//! shard is refused.
//!
//! Tests: `api/groups.rs::groups_skip_nothing_and_repeat_nothing_that_is_done`, `api/groups.rs::a_child_is_given_when_every_parent_is_finished`,
//! `api/groups.rs::a_dead_workers_shards_move_within_its_lease_time_whatever_the_wall_clock_does`,
//! `api/groups.rs::workers_share_the_shards_evenly_and_steal_one_at_a_time`, `api/groups.rs::bad_use_is_told`,
//! `api/clock.rs::a_leap_makes_no_consumer_skip_anything`,
//! `api/groups.rs::what_a_handler_failed_at_is_given_again_from_the_checkpoint_on`, `api/groups.rs::a_shard_that_expires_while_it_is_held_is_lost`,
//! `api/groups.rs::a_shard_is_finished_once_its_end_is_stored`, `api/groups.rs::a_shard_that_went_on_behind_an_end_is_given_to_its_new_one`,
//! `api/read_only.rs::what_a_reader_is_shown_of_the_shards_is_not_undone_by_a_power_cut`,
//! `api/groups.rs::who_took_a_shard_by_hand_has_no_share_of_the_others`,
//! `api/groups.rs::a_shard_that_expires_behind_its_end_is_finished_before_its_children_begin`,
//! `api/groups.rs::a_shard_that_expires_behind_its_end_is_had_while_others_begin`,
//! `api/groups.rs::handlers_of_two_threads_get_a_stream_through_a_split_and_a_merge`, `process/groups.rs::workers_that_are_killed_lose_no_record`.
//!
//! # A19. Queues
//!
//! A record of a stream that a [`Queue`](crate::Queue) was told to start before is received until it is acknowledged, discarded or set aside, or retention takes
//! it: no crash makes a queue skip one. While its visibility lasts nobody else receives it; a receipt is refused once somebody else did
//! ([`Error::ReceiptExpired`](crate::Error::ReceiptExpired)), and nothing is changed. What was acknowledged, and was synced after that, never comes again; what
//! was acknowledged and not synced may come again after a crash. What was set aside and synced is so after a crash; while somebody has it who
//! received it from there, nobody else does. Only durable records are given, at both levels. What a queue keeps, in memory and in its file, is bounded.
//!
//! Tests: `crash/queue.rs::queues_of_synced_streams_survive_a_cut_at_every_operation`, `crash/queue.rs::queues_of_buffered_streams_survive_a_cut_at_every_operation`,
//! `crash/queue.rs::queues_survive_every_failing_operation`, `crash/queue.rs::records_that_take_the_place_of_lost_ones_are_given`,
//! `api/queue.rs::threads_that_share_a_queue_acknowledge_each_record_once`, `api/queue.rs::random_use_agrees_with_a_plain_account`,
//! `api/queue.rs::a_receipt_is_over_once_somebody_else_has_the_record`, `api/queue.rs::bounds_hold_back_what_is_new_and_what_is_set_aside`,
//! `api/queue.rs::what_is_set_aside_is_received_by_one_at_a_time_too_and_done_held_or_put_back`,
//! `api/queue.rs::only_who_received_what_is_set_aside_puts_it_back`,
//! `crash/queue.rs::what_a_sync_could_not_write_is_written_by_the_next`, `crash/queue.rs::a_sync_beside_another_leaves_the_newer_of_what_they_write`,
//! `crash/queue.rs::a_queue_that_is_deleted_while_it_is_written_stays_deleted`, `crash/repair.rs::a_queue_passes_a_lost_record_and_tells_it_once`,
//! `api/queue.rs::a_receipt_of_an_earlier_opening_is_over_though_its_number_is_given_again`,
//! `api/queue.rs::damage_is_told_and_a_repair_sets_the_file_aside`, `api/queue.rs::a_queue_that_stands_behind_the_tail_goes_on_at_the_tail`,
//! `api/clock.rs::a_leap_makes_no_queue_forget_anything`, `api/clock.rs::a_queue_passes_nothing_that_is_not_durable`,
//! `process/queue.rs::nothing_is_lost_or_comes_back_after_kills_synced`, `process/queue.rs::nothing_is_lost_or_comes_back_after_kills_buffered`.
//!
//! # A20. Event sources
//!
//! An [`EventSource`](crate::EventSource) handles every record, or tells the destination of failed batches of it, before a checkpoint passes it; in the order of its key; through splits, merges,
//! and crashes. A shard that changes hands is handled again from its checkpoint on; a source gives a key no second call while one is under way, but a call of
//! another source, from which the shard was taken, may still run beside those of the new one: what it did counts for nothing. By default every batch is given up in the end; where nobody is told of it, the source stops instead. A tumbling window is closed with states
//! that were made of each of its records once, in order, but for those that were given up: whatever failed, crashed or was resharded on the way. An end may be told again, with the same.
//! If a clock is set back, or a put takes longer than a second from its stamp to its durability, a window can be closed in two parts.
//!
//! Tests: `crash/event_source.rs::event_sources_of_synced_streams_survive_a_cut_at_every_operation`, `crash/event_source.rs::event_sources_of_buffered_streams_survive_a_cut_at_every_operation`,
//! `crash/event_source.rs::event_sources_survive_every_failing_operation`,
//! `api/event_source.rs::a_shard_that_expires_behind_its_end_is_handled_before_its_children`,
//! `api/event_source.rs::what_is_under_way_in_a_shard_that_was_lost_keeps_its_keys_waiting_in_others`,
//! `api/event_windows.rs::a_shard_that_expires_behind_its_end_leaves_its_windows_to_its_children`, `process/event_source.rs::event_sources_that_are_killed_lose_no_record_and_no_window`,
//! `api/event_source.rs::keys_stay_in_order_through_splits_and_merges_in_two_sources`, `api/event_source.rs::without_a_destination_the_source_stops_at_what_is_to_be_given_up`,
//! `api/event_source.rs::a_destination_that_fails_stops_the_source`, `api/event_source.rs::a_handler_may_take_longer_than_a_lease_lasts`, `api/event_source.rs::bad_use_is_told`,
//! `api/event_windows.rs::states_go_to_the_children_that_take_their_keys`, `api/event_windows.rs::another_worker_and_a_later_life_go_on_with_what_a_shard_left`,
//! `api/event_windows.rs::an_event_source_stores_no_end_that_a_power_cut_may_undo`, `api/event_windows.rs::a_damaged_file_is_told_and_a_repair_sets_it_aside`.
