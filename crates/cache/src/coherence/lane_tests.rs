//! A model of one lane with a Redis that may forget, a channel that reorders, repeats and loses, and a watchdog.

use proptest::prelude::*;

use super::*;

/// Keys of the model.
const KEYS: usize = 4;

#[derive(Debug, Clone)]
struct Published {
    epoch: u64,
    previous: u64,
    sequence: u64,
    key: usize,
}

/// What Redis and the database know.
struct World {
    epoch: u64,
    sequence: u64,
    published: u64,
    log: Vec<Published>,
    /// The database: how often each key has been written.
    committed: [u64; KEYS],
    /// Redis's entries: the value and its version.
    entries: [Option<(u64, u64)>; KEYS],
    /// Messages on their way.
    channel: Vec<Published>,
}

impl World {
    fn new() -> Self {
        Self {
            epoch: 1,
            sequence: 100,
            published: 100,
            log: Vec::new(),
            committed: [0; KEYS],
            entries: [None; KEYS],
            channel: Vec::new(),
        }
    }

    fn write(&mut self, key: usize) {
        self.committed[key] += 1;
        self.sequence += 1;
        let message = Published { epoch: self.epoch, previous: self.published, sequence: self.sequence, key };
        self.published = self.sequence;
        self.entries[key] = None;
        self.log.push(message.clone());
        self.channel.push(message);
    }

    /// Forgets everything; the clock, and so the numbers, may have been set back.
    fn flush(&mut self, start: u64) {
        self.epoch += 1;
        self.sequence = start;
        self.published = start;
        self.log.clear();
        self.entries = [None; KEYS];
    }

    fn head(&self) -> Position {
        Position { epoch: self.epoch, sequence: self.published }
    }
}

/// A worker with the lane under test.
struct Worker {
    lane: Lane,
    entries: [Option<(u64, Stamp)>; KEYS],
    /// A read whose answer is on its way: the value and the stamp to store it under.
    reading: [Option<(u64, Stamp)>; KEYS],
}

impl Worker {
    /// Sends a read, which Redis executes at once and, on a miss, fills.
    fn read(&mut self, key: usize, world: &mut World) {
        let stamp = self.lane.stamp(hash(key));
        let (value, version) = *world.entries[key].get_or_insert_with(|| {
            world.sequence += 1;
            (world.committed[key], world.sequence)
        });
        self.reading[key] = Some((value, stamp.with_version(version)));
    }

    /// The answer arrives, perhaps late.
    fn store(&mut self, key: usize) {
        if let Some((value, stamp)) = self.reading[key].take()
            && self.lane.allows(hash(key), stamp)
        {
            self.entries[key] = Some((value, stamp));
        }
    }

    fn receive(&self, message: &Published) {
        self.lane.raise(hash(message.key), message.sequence);
        let at = Position { epoch: message.epoch, sequence: message.sequence };
        self.lane.message(message.previous, at);
    }

    /// A look of the watchdog; `overtake` messages arrive while the head's answer travels, `keep` is how much of the log
    /// is left.
    fn look(&self, world: &mut World, overtake: usize, keep: usize) {
        let asked_at = self.lane.position();
        let head = world.head();
        for _ in 0..overtake.min(world.channel.len()) {
            let message = world.channel.remove(0);
            self.receive(&message);
        }
        if let OnHead::Behind(after) = self.lane.head(asked_at, head) {
            let trimmed = world.log.len().saturating_sub(keep);
            let log = world.log[trimmed..].iter().filter(|message| message.sequence > after);
            let numbers: Vec<(u64, u64)> = log
                .map(|message| {
                    self.lane.raise(hash(message.key), message.sequence);
                    (message.previous, message.sequence)
                })
                .collect();
            self.lane.log(head, &numbers);
        }
    }

    fn valid(&self, key: usize) -> Option<u64> {
        self.entries[key].filter(|(_, stamp)| self.lane.allows(hash(key), *stamp)).map(|(value, _)| value)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Read(usize),
    Store(usize),
    /// A message arrives, from anywhere in the channel, and may arrive again.
    Deliver(prop::sample::Index, bool),
    Lose(prop::sample::Index),
    Look {
        overtake: usize,
        keep: usize,
    },
    Flush {
        start: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..KEYS).prop_map(Step::Write),
        6 => (0..KEYS).prop_map(Step::Read),
        6 => (0..KEYS).prop_map(Step::Store),
        5 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, again)| Step::Deliver(which, again)),
        2 => any::<prop::sample::Index>().prop_map(Step::Lose),
        2 => (0_usize..3, 0_usize..6).prop_map(|(overtake, keep)| Step::Look { overtake, keep }),
        1 => (1_u64..400).prop_map(|start| Step::Flush { start }),
    ];
    proptest::collection::vec(step, 1..80)
}

fn hash(key: usize) -> KeyHash {
    // Two of the keys share a bucket.
    KeyHash::of(["lamp", "lamp", "table", "chair"][key])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn after_a_look_nothing_valid_is_old_whatever_was_lost_repeated_or_reordered(steps in steps()) {
        let mut world = World::new();
        let mut worker = Worker { lane: Lane::new(), entries: [None; KEYS], reading: [None; KEYS] };
        for step in steps {
            match step {
                Step::Write(key) => world.write(key),
                Step::Read(key) => worker.read(key, &mut world),
                Step::Store(key) => worker.store(key),
                Step::Deliver(which, again) if !world.channel.is_empty() => {
                    let at = which.index(world.channel.len());
                    let message = world.channel.remove(at);
                    worker.receive(&message);
                    if again {
                        world.channel.push(message);
                    }
                }
                Step::Lose(which) if !world.channel.is_empty() => {
                    let at = which.index(world.channel.len());
                    world.channel.remove(at);
                }
                Step::Flush { start } => world.flush(start),
                Step::Look { overtake, keep } => {
                    worker.look(&mut world, overtake, keep);
                    // A late message of a former epoch may have taken the position away again; then the cache does not
                    // confirm the lane and looks once more.
                    if worker.lane.position() == Some(world.head()) {
                        for key in 0..KEYS {
                            if let Some(value) = worker.valid(key) {
                                prop_assert_eq!(value, world.committed[key], "key {}", key);
                            }
                        }
                    }
                }
                Step::Deliver(..) | Step::Lose(_) => {}
            }
        }
        world.channel.clear();
        worker.look(&mut world, 0, usize::MAX);
        for key in 0..KEYS {
            worker.store(key);
            if let Some(value) = worker.valid(key) {
                prop_assert_eq!(value, world.committed[key], "key {} at the end", key);
            }
        }
    }
}

#[test]
fn an_invalidation_makes_what_was_read_before_it_invalid_and_nothing_else() {
    let lane = Lane::new();
    lane.head(None, Position { epoch: 1, sequence: 10 });
    let (lamp, chair) = (KeyHash::of("lamp"), KeyHash::of("chair"));
    let before = lane.stamp(lamp);
    let other = lane.stamp(chair);
    lane.raise(lamp, 11);
    assert!(!lane.allows(lamp, before), "trap T2: the read was sent before the invalidation was applied");
    assert!(lane.allows(lamp, lane.stamp(lamp)));
    assert!(lane.allows(lamp, before.with_version(12)), "trap T5: its own echo");
    assert!(lane.allows(chair, other));
}
