//! What the tests share: seeds, directories, waiting.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// For the test of this name: from `PROCESS_SEED`, or the clock.
    pub(crate) fn of_test(name: &str) -> Self {
        let seed = std::env::var("PROCESS_SEED").map_or_else(
            |_| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()),
            |text| text.parse().unwrap(),
        );
        println!("{name}: PROCESS_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, without `high`.
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.within(low, high))
    }
}

/// Waits until `happened`; a bound against hanging, not a measurement.
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How long a file is; 0 while there is none.
pub(crate) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A file's whole lines, each as numbers: a line that a kill cut short is left out.
pub(crate) fn lines<const N: usize>(path: &Path) -> Vec<[u64; N]> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let numbers = |line: &str| -> [u64; N] {
        let fields: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap()).collect();
        fields.try_into().unwrap()
    };
    whole.lines().map(numbers).collect()
}
