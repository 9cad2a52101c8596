//! The arithmetic of windows. The script does the same; a property test holds them together.

/// Where one identity's windows of one policy lie, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    offset_us: u64,
    window_us: u64,
}

/// A counter of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    pub(crate) index: u64,
    pub(crate) used: u64,
}

impl Grid {
    pub(crate) fn new(seed: u32, window_us: u64) -> Self {
        // Floating point, because the script has nothing else; both round alike.
        let part = f64::from(seed) / 4_294_967_296.0;
        Self { offset_us: (part * window_us as f64).floor() as u64, window_us }
    }

    /// The grid of shorter parts of a window.
    pub(crate) fn within(seed: u32, window_us: u64, part_us: u64) -> Self {
        Self { window_us: part_us, ..Self::new(seed, window_us) }
    }

    /// The number of the window that `now_us` lies in.
    pub(crate) fn index_at(self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.offset_us) / self.window_us
    }

    /// How long after `now_us` the window `index` ends.
    pub(crate) fn until_end(self, index: u64, now_us: u64) -> u64 {
        ((index + 1) * self.window_us + self.offset_us).saturating_sub(now_us)
    }

    /// What `stored` counts at `now_us`: itself while its window lasts, otherwise a fresh window.
    ///
    /// A clock that stepped back by less than a window finds the window after its own, and stays in it: a fresh one
    /// would admit the limit twice. After a larger step the stored window means nothing.
    pub(crate) fn current(self, stored: Option<Window>, now_us: u64) -> Window {
        let index = self.index_at(now_us);
        match stored {
            Some(window) if window.index == index || window.index == index + 1 => window,
            _ => Window { index, used: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_each_other_without_gap_from_the_offset_on() {
        let grid = Grid::new(u32::MAX / 2, 1000);
        assert_eq!(grid.offset_us, 499);
        assert_eq!((grid.index_at(10_498), grid.index_at(10_499)), (9, 10));
        assert_eq!(grid.until_end(10, 10_499), 1000);
        assert_eq!(grid.until_end(10, 11_498), 1);
    }

    #[test]
    fn a_counter_is_kept_through_its_window_and_a_small_step_back() {
        let grid = Grid::new(0, 1000);
        let stored = Some(Window { index: 7, used: 3 });
        assert_eq!(grid.current(stored, 7000).used, 3);
        assert_eq!(grid.current(stored, 7999).used, 3);
        assert_eq!(grid.current(stored, 8000), Window { index: 8, used: 0 });
        assert_eq!(grid.current(stored, 6999), Window { index: 7, used: 3 });
        assert_eq!(grid.current(stored, 5999), Window { index: 5, used: 0 });
        assert_eq!(grid.current(None, 42), Window { index: 0, used: 0 });
    }

    #[test]
    fn offsets_lie_within_the_window_whatever_its_length() {
        for window_us in [1000, 1_000_000, 900_000_000, 366 * 86_400_000_000] {
            for seed in [0, 1, u32::MAX / 3, u32::MAX] {
                assert!(Grid::new(seed, window_us).offset_us < window_us);
            }
        }
    }
}
