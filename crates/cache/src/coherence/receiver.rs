//! Where this worker stands in one lane's sequence of invalidations. Pure: it is told what arrived and says what that means.
//!
//! Applying an invalidation early, late or twice does no harm (floors only rise), so nothing is buffered: a message
//! beyond a gap is applied at once, and only the position waits for the log (trap T3).

/// A place in a lane's sequence. Numbers of different epochs cannot be compared: Redis forgot in between (trap T4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// The receiving end of one lane.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// Everything up to here has been applied; `None` until Redis has been asked, and again after an epoch's end.
    position: Option<Position>,
}

/// What a message means. Its keys are to be applied whatever the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnMessage {
    /// The next one.
    Next,
    /// Already covered.
    Known,
    /// Something before it is missing: catch up.
    Gap,
    /// Another epoch, or the position is not known yet: what the lane holds in memory is worthless; ask for its head.
    Lost,
}

/// What the head of the lane, as Redis tells it, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnHead {
    /// Nothing was missed up to the moment of asking.
    InStep,
    /// The log has to be read after this number.
    Behind(u64),
    /// The sequence was broken; the lane's memory is to be dropped, and the position is now the head.
    Broken,
}

/// What the log said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLog {
    /// The position has reached the head.
    CaughtUp,
    /// The log no longer reaches back far enough; the lane's memory is to be dropped, and the position is now the head.
    Broken,
}

impl Receiver {
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Forgets the position until the head is known.
    pub(crate) fn lose(&mut self) {
        self.position = None;
    }

    /// Takes a message that says it follows `previous`.
    pub(crate) fn message(&mut self, previous: u64, at: Position) -> OnMessage {
        let Some(position) = &mut self.position else {
            return OnMessage::Lost;
        };
        if position.epoch != at.epoch {
            self.position = None;
            return OnMessage::Lost;
        }
        if at.sequence <= position.sequence {
            return OnMessage::Known;
        }
        if previous > position.sequence {
            return OnMessage::Gap;
        }
        position.sequence = at.sequence;
        OnMessage::Next
    }

    /// Takes the lane's head, asked for when the position was `asked_at`.
    ///
    /// The position may have moved on while the answer travelled, so a head behind it is only a sequence that went back
    /// (a restored snapshot, a failover that lost writes) when it is behind `asked_at`.
    pub(crate) fn head(&mut self, asked_at: Option<Position>, head: Position) -> OnHead {
        match (asked_at, self.position) {
            (Some(asked), Some(now)) if now.epoch == head.epoch && asked.epoch == head.epoch => {
                if head.sequence < asked.sequence {
                    self.position = Some(head);
                    OnHead::Broken
                } else if head.sequence <= now.sequence {
                    OnHead::InStep
                } else {
                    OnHead::Behind(now.sequence)
                }
            }
            _ => {
                self.position = Some(head);
                OnHead::Broken
            }
        }
    }

    /// Takes the log between a position and `head`: pairs of previous and own sequence number, in order.
    pub(crate) fn log(&mut self, head: Position, entries: &[(u64, u64)]) -> OnLog {
        for &(previous, sequence) in entries {
            let at = Position { epoch: head.epoch, sequence };
            if matches!(self.message(previous, at), OnMessage::Gap | OnMessage::Lost) {
                break;
            }
        }
        match self.position {
            Some(now) if now.epoch == head.epoch && now.sequence >= head.sequence => OnLog::CaughtUp,
            _ => {
                self.position = Some(head);
                OnLog::Broken
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, sequence: u64) -> Position {
        Position { epoch, sequence }
    }

    fn receiver(epoch: u64, sequence: u64) -> Receiver {
        Receiver { position: Some(at(epoch, sequence)) }
    }

    #[test]
    fn a_message_is_placed_by_its_predecessor() {
        let table = [
            (5, at(1, 8), OnMessage::Next, at(1, 8)),
            (4, at(1, 8), OnMessage::Next, at(1, 8)),
            (6, at(1, 8), OnMessage::Gap, at(1, 5)),
            (3, at(1, 5), OnMessage::Known, at(1, 5)),
            (2, at(1, 3), OnMessage::Known, at(1, 5)),
        ];
        for (previous, message, expected, after) in table {
            let mut receiver = receiver(1, 5);
            assert_eq!(receiver.message(previous, message), expected, "{previous} -> {message:?}");
            assert_eq!(receiver.position(), Some(after), "{previous} -> {message:?}");
        }
    }

    #[test]
    fn another_epoch_forgets_the_position_until_the_head_is_known() {
        let mut receiver = receiver(1, 5);
        assert_eq!(receiver.message(5, at(2, 6)), OnMessage::Lost);
        assert_eq!(receiver.message(6, at(2, 7)), OnMessage::Lost);
        assert_eq!(receiver.head(None, at(2, 7)), OnHead::Broken);
        assert_eq!(receiver.message(7, at(2, 8)), OnMessage::Next);
    }

    #[test]
    fn a_head_overtaken_by_messages_is_in_step_but_one_behind_the_question_is_a_sequence_gone_back() {
        let mut overtaken = receiver(1, 9);
        assert_eq!(overtaken.head(Some(at(1, 5)), at(1, 7)), OnHead::InStep);
        assert_eq!(overtaken.position(), Some(at(1, 9)));
        let mut gone_back = receiver(1, 9);
        assert_eq!(gone_back.head(Some(at(1, 9)), at(1, 7)), OnHead::Broken);
        assert_eq!(gone_back.position(), Some(at(1, 7)));
    }

    #[test]
    fn a_trimmed_log_breaks_the_lane_and_a_whole_one_does_not() {
        let mut whole = receiver(1, 5);
        assert_eq!(whole.head(Some(at(1, 5)), at(1, 9)), OnHead::Behind(5));
        assert_eq!(whole.log(at(1, 9), &[(5, 7), (7, 9)]), OnLog::CaughtUp);
        let mut trimmed = receiver(1, 5);
        assert_eq!(trimmed.log(at(1, 9), &[(7, 9)]), OnLog::Broken);
        assert_eq!(trimmed.position(), Some(at(1, 9)));
        let mut cut = receiver(1, 5);
        assert_eq!(cut.log(at(1, 9), &[(5, 7)]), OnLog::Broken);
    }
}
