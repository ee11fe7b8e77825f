//! What a survey takes for sound, where it says that it stands, and what it gives up.

use super::*;
use crate::format::{FrameInput, SealKind, encode_to};
use crate::segment::SegmentWriter;
use crate::storage::{Access, SimulatedDisk, Storage};

const FILE_BYTES: usize = 64 << 10;
const PATH: &str = "segment";
const FIRST: u64 = 10;

fn header() -> SegmentHeader {
    SegmentHeader {
        stream_id: StreamId::new(5),
        shard_id: ShardId::new(2),
        incarnation: 3,
        first: SequenceNumber::new(FIRST),
        created: Timestamp::from_millis(77),
        file_bytes: FILE_BYTES as u64,
    }
}

fn expected() -> Expected {
    let SegmentHeader { stream_id, shard_id, first, .. } = header();
    Expected { stream_id, shard_id, first, incarnations: 1..=5 }
}

/// A record whose batch ends with it, that arrived at 100 + its number and vouches for nothing.
fn input(number: u64) -> FrameInput<'static> {
    FrameInput {
        sequence_number: SequenceNumber::new(number),
        arrival: Timestamp::from_millis(100 + i64::try_from(number % 1000).unwrap()),
        durable: SequenceNumber::ZERO,
        batch_remaining: 0,
        explicit_hash_key: None,
        producer: None,
        partition_key: "key",
        data: &[7; 50],
    }
}

/// A segment in the making.
struct Image {
    header: SegmentHeader,
    bytes: Vec<u8>,
    /// Where each frame starts, and where the last one ends.
    positions: Vec<usize>,
}

impl Image {
    fn of(header: SegmentHeader) -> Self {
        let bytes = header.encode().to_vec();
        Self { header, positions: vec![bytes.len()], bytes }
    }

    fn new() -> Self {
        Self::of(header())
    }

    fn add(mut self, input: &FrameInput<'_>) -> Self {
        encode_to(&mut self.bytes, self.header.seed(), input);
        self.positions.push(self.bytes.len());
        self
    }

    /// Batches of these lengths, the numbers without a gap.
    fn batches(batches: &[u32]) -> Self {
        let mut numbers = FIRST..;
        let frames = batches.iter().flat_map(|count| (0..*count).rev());
        frames.zip(&mut numbers).fold(Self::new(), |image, (batch_remaining, number)| {
            image.add(&FrameInput { batch_remaining, ..input(number) })
        })
    }

    fn behind(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        *self.positions.last_mut().unwrap() = self.bytes.len();
        self
    }

    fn damage(mut self, index: usize) -> Self {
        let position = self.positions[index];
        self.bytes[position + 20] ^= 0xff;
        self
    }

    fn damage_header(mut self) -> Self {
        self.bytes[3] ^= 0xff;
        self
    }

    /// In a file of the length that the header says.
    fn whole(mut self) -> Self {
        self.bytes.resize(usize::try_from(self.header.file_bytes).unwrap(), 0);
        self
    }

    fn file(&self) -> Arc<dyn StorageFile> {
        let file = SimulatedDisk::new().create_file(Path::new(PATH)).unwrap();
        file.write_at(&self.bytes, 0).unwrap();
        file
    }

    fn survey_as(&self, expected: &Expected) -> Option<Survey> {
        Survey::of(&self.file(), Path::new(PATH), expected).unwrap()
    }

    fn survey(&self) -> Survey {
        self.survey_as(&expected()).unwrap()
    }

    /// From which record to behind which one each run goes, and the number behind its last whole batch; checks that the places
    /// are those of the records.
    fn runs(&self) -> Vec<(u64, u64, u64)> {
        let runs = self.survey().runs;
        for run in &runs {
            assert!(self.positions.contains(&usize::try_from(run.start).unwrap()), "{run:?}");
            assert!(self.positions.contains(&usize::try_from(run.end).unwrap()), "{run:?}");
        }
        bounds(&runs)
    }
}

fn bounds(runs: &[Run]) -> Vec<(u64, u64, u64)> {
    runs.iter().map(|run| (run.first.get(), run.next.get(), run.whole.get())).collect()
}

#[test]
fn sound_records_around_a_damaged_one_are_runs() {
    let image = Image::batches(&[1, 1, 1, 1]).damage(1).whole();
    let survey = image.survey();
    assert_eq!(survey.header, header());
    assert!(survey.footer.is_none());
    assert_eq!(image.runs(), [(10, 11, 11), (12, 14, 14)]);
    let [before, behind] = survey.runs.as_slice() else { panic!("{survey:?}") };
    let at = |index: usize| image.positions[index] as u64;
    assert_eq!((before.start, before.end), (at(0), at(1)));
    assert_eq!((behind.start, behind.end), (at(2), at(4)));
    assert_eq!((before.last_arrival.as_millis(), behind.last_arrival.as_millis()), (110, 113));
}

#[test]
fn a_run_ends_where_a_number_or_a_place_is_left_out() {
    assert_eq!(Image::new().add(&input(10)).add(&input(12)).whole().runs(), [(10, 11, 11), (12, 13, 13)]);
    let apart = Image::new().add(&input(10)).behind(&[1; 8]).add(&input(11)).whole();
    let starts: Vec<_> = apart.survey().runs.iter().map(|run| (run.first.get(), run.end - run.start)).collect();
    let frame = (apart.positions[2] - apart.positions[1]) as u64;
    assert_eq!(starts, [(10, frame), (11, frame)]);
}

#[test]
fn a_record_is_found_wherever_it_stands() {
    let mut image = Image::new();
    image.header.file_bytes = FILE_BYTES as u64;
    let last = image.bytes.len() + FILE_BYTES / 2;
    for (gap, byte) in [(last, 0), (last, 0xee), (1 << 15, 1)] {
        let image = Image::new().behind(&vec![byte; gap.next_multiple_of(8)]).add(&input(10)).whole();
        assert_eq!(image.runs(), [(10, 11, 11)], "behind {gap} bytes of {byte:x}");
    }
    // Up to the footer's place, and no further.
    let frame = Image::new().add(&input(10)).bytes.len() - SEGMENT_HEADER_BYTES;
    let room = FILE_BYTES - SEGMENT_HEADER_BYTES - FOOTER_BYTES - frame;
    assert_eq!(Image::new().behind(&vec![0; room]).add(&input(10)).whole().runs(), [(10, 11, 11)]);
    assert_eq!(Image::new().behind(&vec![0; room + 8]).add(&input(10)).whole().runs(), []);
}

#[test]
fn the_last_whole_batch_is_told() {
    assert_eq!(Image::batches(&[2, 3]).whole().runs(), [(10, 15, 15)]);
    assert_eq!(Image::batches(&[2, 3]).damage(3).whole().runs(), [(10, 13, 12), (14, 15, 15)]);
    assert_eq!(Image::batches(&[2, 3]).damage(2).damage(4).whole().runs(), [(10, 12, 12), (13, 14, 13)]);
}

#[test]
fn a_record_that_arrived_before_the_one_before_it_is_none() {
    let at = |number, millis| FrameInput { arrival: Timestamp::from_millis(millis), ..input(number) };
    let image = |second, third| Image::new().add(&at(10, 50)).add(&at(11, second)).add(&at(12, third)).whole();
    assert_eq!(image(50, 50).runs(), [(10, 13, 13)]);
    assert_eq!(image(49, 50).runs(), [(10, 11, 11), (12, 13, 13)]);
    assert_eq!(image(51, 50).runs(), [(10, 12, 12)]);
}

#[test]
fn the_highest_number_stands_for_no_record() {
    let first = SequenceNumber::new(u64::MAX - 1);
    let image = Image::of(SegmentHeader { first, ..header() });
    let image = image.add(&input(u64::MAX - 1)).add(&input(u64::MAX)).whole();
    let survey = image.survey_as(&Expected { first, ..expected() }).unwrap();
    assert_eq!(bounds(&survey.runs), [(u64::MAX - 1, u64::MAX, u64::MAX)]);
}

#[test]
fn a_record_vouches_for_those_before_it_and_for_no_other() {
    let vouching = |number, durable| FrameInput { durable: SequenceNumber::new(durable), ..input(number) };
    for (claims, durable) in [([0, 0], 0), ([10, 11], 11), ([10, 10], 10), ([0, 500], 11)] {
        let image = Image::new().add(&vouching(10, claims[0])).add(&vouching(11, claims[1])).whole();
        assert_eq!(image.survey().durable.get(), durable, "{claims:?}");
    }
}

/// Every 16 bytes the head of a long frame with a number to come: each asks for a checksum. Past the budget what follows is given up.
#[test]
fn data_that_imitates_frames_costs_no_more_than_the_budget() {
    let claims = |count: usize| {
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend_from_slice(&1_u32.to_le_bytes());
            bytes.extend_from_slice(&60_000_u32.to_le_bytes());
            bytes.extend_from_slice(&(FIRST + 20).to_le_bytes());
        }
        let long = SegmentHeader { file_bytes: 2 * FILE_BYTES as u64, ..header() };
        Image::of(long).behind(&bytes).add(&input(10)).whole().runs()
    };
    assert_eq!(claims(400), [(10, 11, 11)]);
    assert_eq!(claims(1_500), []);
}

/// The budget grows with the segment: sound records are paid from it, too.
#[test]
fn sound_records_cost_less_than_the_budget() {
    let long = SegmentHeader { file_bytes: 66 << 20, ..header() };
    let data = &vec![7; 64 << 20];
    let image = Image::of(long).add(&FrameInput { data, ..input(10) }).add(&input(11)).whole();
    assert_eq!(image.runs(), [(10, 12, 12)]);
}

#[test]
fn a_torn_tail_is_cut_to_whole_batches_and_what_was_durable() {
    let cut = |durable| {
        let mut survey = Image::batches(&[2, 3]).damage(3).whole().survey(); // records 10 to 12, and 14
        survey.cut_torn_tail(SequenceNumber::new(durable));
        survey.runs.iter().map(|run| (run.first.get(), run.next.get())).collect::<Vec<_>>()
    };
    assert_eq!(cut(0), [(10, 12)]);
    assert_eq!(cut(11), [(10, 12)]);
    assert_eq!(cut(13), [(10, 13)]);
    assert_eq!(cut(14), [(10, 13)]);
    assert_eq!(cut(15), [(10, 13), (14, 15)]);
    // Without the first batch nothing says that what stands there was ever whole.
    let mut survey = Image::batches(&[2, 3]).damage(0).whole().survey();
    assert_eq!(bounds(&survey.runs), [(11, 15, 15)]);
    survey.cut_torn_tail(SequenceNumber::new(13));
    assert_eq!(survey.runs.iter().map(|run| run.next.get()).collect::<Vec<_>>(), [13]);
    // What a record says was durable counts too.
    let vouching = FrameInput { durable: SequenceNumber::new(12), ..input(12) };
    let mut survey = Image::batches(&[2]).add(&vouching).damage(0).whole().survey();
    survey.cut_torn_tail(SequenceNumber::ZERO);
    assert_eq!(survey.runs.iter().map(|run| run.next.get()).collect::<Vec<_>>(), [12]);
}

#[test]
fn what_another_segment_holds_is_cut() {
    for (at, left) in [(9, vec![]), (10, vec![]), (11, vec![11]), (13, vec![11, 13]), (90, vec![11, 14])] {
        let mut survey = Image::batches(&[1, 1, 1, 1]).damage(1).whole().survey();
        survey.cut_at(SequenceNumber::new(at));
        assert_eq!(survey.runs.iter().map(|run| run.next.get()).collect::<Vec<_>>(), left, "at {at}");
    }
}

#[test]
fn a_visit_gives_the_records_of_the_run_until_it_is_refused() {
    let image = Image::batches(&[1, 1, 1, 1]).whole();
    let mut survey = image.survey();
    survey.cut_at(SequenceNumber::new(13));
    let visited = |most: usize| {
        let mut numbers = Vec::new();
        let all = survey.visit(&image.file(), Path::new(PATH), &survey.runs[0], |frame| {
            numbers.push(frame.sequence_number.get());
            Ok(numbers.len() < most)
        });
        (all.unwrap(), numbers)
    };
    assert_eq!(visited(9), (true, vec![10, 11, 12]));
    assert_eq!(visited(2), (false, vec![10, 11]));
}

#[test]
fn a_sound_header_of_another_place_is_believed() {
    let image = Image::batches(&[1]).whole();
    assert!(image.survey_as(&expected()).is_some());
    assert!(image.survey_as(&Expected { stream_id: StreamId::new(6), ..expected() }).is_none());
    assert!(image.survey_as(&Expected { shard_id: ShardId::new(6), ..expected() }).is_none());
    assert!(image.survey_as(&Expected { first: SequenceNumber::new(6), ..expected() }).is_none());
}

#[test]
fn records_stand_up_to_the_very_end_of_a_file_that_was_cut() {
    let image = Image::batches(&[1, 1]);
    assert_eq!(image.runs(), [(10, 12, 12)]);
    let length = image.bytes.len() as u64;
    assert_eq!(image.survey().header, SegmentHeader { file_bytes: length + FOOTER_BYTES as u64, ..header() });
}

#[test]
fn a_damaged_header_is_found_again_by_what_it_sealed() {
    let guessed = SegmentHeader { created: Timestamp::MIN, ..header() };
    let image = Image::batches(&[1, 1]).damage_header().whole();
    assert_eq!(image.survey().header, guessed);
    assert_eq!(image.runs(), [(10, 12, 12)]);
    let of_others = Expected { incarnations: 1..=2, ..expected() };
    assert!(image.survey_as(&of_others).is_none(), "an incarnation that never was");
    let first_too = Image::batches(&[1, 1]).damage_header().damage(0).whole();
    assert_eq!(first_too.survey().header, guessed);
    assert_eq!(first_too.runs(), [(11, 12, 12)]);
    let all = Image::batches(&[1, 1]).damage_header().damage(0).damage(1).whole();
    assert!(all.survey_as(&expected()).is_none(), "nothing tells whose it is");
    for length in [0, 8, 104, 128, 248, 250] {
        let mut short = Image::batches(&[1, 1]).damage_header().whole();
        short.bytes.truncate(length);
        assert!(short.survey_as(&expected()).is_none(), "{length} bytes");
    }
}

/// A front of zeros, of noise, and of data that imitate records: those behind it tell.
#[test]
fn a_damaged_header_is_found_again_by_records_behind_its_front() {
    let first = u32::try_from(FIRST).unwrap();
    let numbers = (first..first + 200).flat_map(|number| [number, 64, number, 0]);
    let numbers: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    for front in [vec![0; 3_000], vec![0xa7; 3_000], numbers] {
        let image = Image::new().behind(&front).add(&input(11)).add(&input(12)).damage_header().whole();
        let guessed = SegmentHeader { created: Timestamp::MIN, ..header() };
        assert_eq!(image.survey().header, guessed, "{:?}", &front[..4]);
        assert_eq!(image.runs(), [(11, 13, 13)], "{:?}", &front[..4]);
    }
    // What says that others came before it, which have no room there, is none of its records.
    for before in [1, 40] {
        let far = Image::new().behind(&[0; 8]).add(&input(FIRST + before)).damage_header().whole();
        assert!(far.survey_as(&expected()).is_none(), "{before} before it");
    }
}

/// All of them are kept in memory, and summed up for every incarnation.
#[test]
fn the_incarnation_is_looked_for_with_the_first_record_and_with_short_ones() {
    let header = SegmentHeader { file_bytes: 8 << 20, ..header() };
    let (short, long) = (vec![7; 1_000], vec![7; 1_200_000]);
    for (data, expected) in [
        (vec![&long, &long, &short, &long, &short], vec![1_200_048, 1_048]),
        (vec![&short, &short, &long, &short], vec![1_048; 3]),
        (vec![&long, &long, &long], vec![1_200_048; 2]),
        (vec![&short; 20], vec![1_048; MAX_WITNESSES]),
    ] {
        let image = (FIRST..)
            .zip(data)
            .fold(Image::of(header), |image, (number, data)| image.add(&FrameInput { data, ..input(number) }))
            .damage_header()
            .whole();
        let witnesses = Witnesses::of(image.file().as_ref(), Path::new(PATH), &header).unwrap();
        assert_eq!(witnesses.frames.iter().map(Vec::len).collect::<Vec<_>>(), expected);
        assert!(witnesses.guesses() * 2_400_096 >= 1 << 30 && witnesses.guesses() <= MAX_GUESSES);
        assert_eq!(image.survey().header.incarnation, header.incarnation);
    }
    let long = Witnesses { footer: [0; FOOTER_BYTES], frames: vec![vec![0; 8 << 20]; 2] };
    assert_eq!(long.guesses(), GUESS_BYTES / (16 << 20), "fewer, the longer they are");
}

#[test]
fn a_damaged_header_is_found_again_by_its_footer() {
    let disk = SimulatedDisk::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.create_dir(Path::new("shard")).unwrap();
    let path = Path::new("shard").join(crate::format::segment_name(header().first));
    // The shortest file there is: a footer and no record.
    let short = SegmentHeader { file_bytes: SegmentWriter::file_bytes_for(0, 0), ..header() };
    SegmentWriter::create_lost(&storage, Path::new("shard"), short, 4, Timestamp::from_millis(5), &[]).unwrap();
    disk.damage(&path, |bytes| bytes[3] ^= 0xff).unwrap();
    let file = storage.open_file(&path, Access::Read).unwrap();
    let survey = Survey::of(&file, &path, &expected()).unwrap().unwrap();
    let footer = survey.footer.unwrap();
    assert_eq!((footer.kind, footer.next().get()), (SealKind::Lost, FIRST + 4));
}

/// A file of which every byte tells its place, some sectors of it unreadable.
fn scratched(length: usize, bad: &[usize]) -> (Vec<u8>, Arc<dyn StorageFile>) {
    let disk = SimulatedDisk::new();
    let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(1 + at % 251).unwrap()).collect();
    let file = disk.create_file(Path::new(PATH)).unwrap();
    file.write_at(&bytes, 0).unwrap();
    for at in bad {
        disk.make_unreadable(Path::new(PATH), *at..*at + 1).unwrap();
    }
    (bytes, file)
}

#[test]
fn unreadable_sectors_read_as_zeros_and_their_neighbours_as_they_are() {
    const LENGTH: usize = 30_000;
    let (mut bytes, file) = scratched(LENGTH, &[9_000, 20_481]);
    bytes[8_192..12_288].fill(0);
    bytes[20_480..24_576].fill(0);
    let tolerant = tolerant(file);
    assert_eq!(tolerant.len().unwrap(), LENGTH as u64);
    for (position, length) in [(0, LENGTH), (0, 50_000), (1_000, 20_000), (8_193, 5_000), (12_288, 20_000)] {
        let mut buffer = vec![0xaa; length];
        let read = tolerant.read_at(&mut buffer, position as u64).unwrap();
        let expected = &bytes[position..LENGTH.min(position + length)];
        assert_eq!(read, expected.len(), "{length} bytes at {position}");
        assert!(buffer[..read] == *expected, "{length} bytes at {position}");
    }
    let mut buffer = vec![0xaa; 100];
    assert_eq!(tolerant.read_at(&mut buffer, 100).unwrap(), 100);
    assert_eq!(buffer, bytes[100..200]);
}

#[test]
fn a_tolerant_file_is_for_reading() {
    let (_, file) = scratched(100, &[]);
    let tolerant = tolerant(file);
    let kind = |outcome: io::Result<()>| outcome.unwrap_err().kind();
    let refused = [
        kind(tolerant.write_at(b"x", 0)),
        kind(tolerant.allocate(1_000)),
        kind(tolerant.release(0..8)),
        kind(tolerant.sync()),
        kind(tolerant.map(8).map(drop)),
    ];
    assert_eq!(refused, [io::ErrorKind::Unsupported; 5]);
}

#[test]
fn a_copy_has_the_same_bytes() {
    for length in [0, 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 4_097] {
        let (bytes, file) = scratched(length, &[]);
        let disk = SimulatedDisk::new();
        let to = disk.create_file(Path::new("copy")).unwrap();
        copy(file.as_ref(), to.as_ref(), length as u64).unwrap();
        assert!(disk.read_file(Path::new("copy")).unwrap() == bytes, "{length} bytes");
    }
}
