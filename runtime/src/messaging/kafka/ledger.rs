//! What of one partition is out, done and committed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Incoming;

/// Longest note beside a committed offset: the server's own limit is 4096 bytes.
const NOTE_BYTES_MAX: usize = 3_000;
const NOTE_VERSION: &str = "interline1";
/// How long a commit may take until it is made again.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

/// The messages of one assignment of one partition, in the order of their offsets.
///
/// What can be committed is the lowest offset that is not finished; finished ones above it go into a
/// note beside the offset, so that the next owner does not handle them again.
#[derive(Debug)]
pub(super) struct Ledger {
    slots: VecDeque<Slot>,
    /// One above the highest offset that was read.
    next: i64,
    out: usize,
    /// What was committed last, with its note.
    committed: Option<(i64, String)>,
    committed_at: Instant,
    /// The position that the cluster said last that it has.
    confirmed: Option<i64>,
    changed: bool,
    before: Note,
}

#[derive(Debug)]
struct Slot {
    offset: i64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In our hands, waiting for its turn or its time.
    Waiting,
    /// With the engine; kept so that it can be handed out again.
    Out(Arc<Incoming>),
    /// The engine had it, and it waits again.
    Back,
    Done,
}

/// What the former owner of a partition wrote beside its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// One above the highest offset that was handed out.
    pub(super) handed_out: i64,
    /// Finished offsets above the committed one: first and one above the last.
    pub(super) done: Vec<(i64, i64)>,
}

impl Note {
    pub(super) fn parse(text: &str) -> Self {
        let mut note = Self::default();
        let Some(rest) = text.strip_prefix(NOTE_VERSION) else {
            return note;
        };
        for (at, word) in rest.split_whitespace().enumerate() {
            if at == 0 {
                note.handed_out = word.parse().unwrap_or(0);
            } else if let Some((first, end)) = word.split_once('-')
                && let (Ok(first), Ok(end)) = (first.parse(), end.parse())
            {
                note.done.push((first, end));
            }
        }
        note
    }

    /// The finished offsets from `next` on.
    fn unread(&self, next: i64) -> Vec<(i64, i64)> {
        let ranges = self.done.iter().filter(|(_, end)| *end > next);
        ranges
            .map(|(first, end)| (*first.max(&next), *end))
            .collect()
    }

    fn is_done(&self, offset: i64) -> bool {
        self.done
            .iter()
            .any(|(first, end)| (*first..*end).contains(&offset))
    }
}

/// What is known of a message that was just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nobody had it.
    New,
    /// The former owner handed it out and did not finish it.
    Again,
    /// The former owner finished it.
    Finished,
}

impl Ledger {
    pub(super) fn new(before: Note) -> Self {
        Self {
            slots: VecDeque::new(),
            next: 0,
            out: 0,
            committed: None,
            committed_at: Instant::now(),
            confirmed: None,
            changed: false,
            before,
        }
    }

    /// Whether an offset lies below what was read: then this is not the partition that it was.
    pub(super) fn is_beyond(&self, offset: i64) -> bool {
        offset < self.next
    }

    /// Enters a message that was read; its offset is above all before.
    pub(super) fn enter(&mut self, offset: i64) -> Read {
        self.next = self.next.max(offset + 1);
        let finished = self.before.is_done(offset);
        let state = if finished {
            State::Done
        } else {
            State::Waiting
        };
        self.slots.push_back(Slot { offset, state });
        if finished {
            self.advance();
            return Read::Finished;
        }
        if offset < self.before.handed_out {
            Read::Again
        } else {
            Read::New
        }
    }

    /// It goes to the engine; false if it is not ours any more.
    pub(super) fn hand_out(&mut self, offset: i64, incoming: Arc<Incoming>) -> bool {
        let Some(slot) = self.find(offset) else {
            return false;
        };
        slot.state = State::Out(incoming);
        self.out += 1;
        self.changed = true;
        true
    }

    /// It is finished; false if it was not out.
    pub(super) fn finish(&mut self, offset: i64) -> bool {
        let Some(slot) = self.find(offset) else {
            return false;
        };
        if !matches!(slot.state, State::Out(_)) {
            return false;
        }
        slot.state = State::Done;
        self.out -= 1;
        self.changed = true;
        self.advance();
        true
    }

    /// It is not out any more and comes again.
    pub(super) fn take_back(&mut self, offset: i64) -> Option<Arc<Incoming>> {
        self.no_longer_out(offset, State::Back)
    }

    /// The engine had no room for it, and has not seen it; false if it is not ours any more.
    pub(super) fn not_taken(&mut self, offset: i64) -> bool {
        self.no_longer_out(offset, State::Waiting).is_some()
    }

    fn no_longer_out(&mut self, offset: i64, becomes: State) -> Option<Arc<Incoming>> {
        let slot = self.find(offset)?;
        match std::mem::replace(&mut slot.state, becomes) {
            State::Out(incoming) => {
                self.out -= 1;
                self.changed = true;
                Some(incoming)
            }
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Forgets everything, so that nothing can be finished any more; how many were with the engine.
    pub(super) fn close(&mut self) -> usize {
        self.slots.clear();
        std::mem::take(&mut self.out)
    }

    /// How many are with the engine.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// The offset and note to be committed, if they differ from what is.
    pub(super) fn take_commit(&mut self) -> Option<(i64, String)> {
        if self.is_overtaken() {
            self.not_committed();
        }
        if !std::mem::take(&mut self.changed) || self.next == 0 {
            return None;
        }
        let wanted = (self.watermark(), self.note());
        if self.committed.as_ref() == Some(&wanted) {
            return None;
        }
        self.committed = Some(wanted.clone());
        self.committed_at = Instant::now();
        Some(wanted)
    }

    /// Whether the cluster has another position than the one that was committed last: while a group is shared
    /// out, an earlier commit can come after a later one, or an answer fail to come.
    fn is_overtaken(&self) -> bool {
        let last = self.committed.as_ref().map(|(offset, _)| *offset);
        last.is_some() && self.confirmed != last && self.committed_at.elapsed() > CONFIRMED_WITHIN
    }

    /// The cluster has this position.
    pub(super) fn confirmed(&mut self, offset: i64) {
        self.confirmed = Some(offset);
    }

    /// The offset and note as they are, whatever was committed: an earlier commit may still turn out to
    /// have failed. `None` if nothing was read.
    pub(super) fn last_commit(&self) -> Option<(i64, String)> {
        (self.next > 0).then(|| (self.watermark(), self.note()))
    }

    /// What was said to be committed was not.
    pub(super) fn not_committed(&mut self) {
        self.committed = None;
        self.changed = true;
    }

    /// The lowest offset that is not finished.
    pub(super) fn watermark(&self) -> i64 {
        self.slots.front().map_or(self.next, |slot| slot.offset)
    }

    fn note(&self) -> String {
        let handed_out = self
            .slots
            .iter()
            .rev()
            .find(|slot| !matches!(slot.state, State::Waiting))
            .map_or_else(|| self.watermark(), |slot| slot.offset + 1)
            .max(self.before.handed_out);
        let mut note = format!("{NOTE_VERSION} {handed_out}");
        let mut run: Option<(i64, i64)> = None;
        let write = |note: &mut String, run: Option<(i64, i64)>| {
            // What has no room is handled again.
            if let Some((first, end)) = run.filter(|_| note.len() < NOTE_BYTES_MAX) {
                let _ = write!(note, " {first}-{end}");
            }
        };
        for slot in &self.slots {
            let done = matches!(slot.state, State::Done);
            run = match (run, done) {
                (Some((first, _)), true) => Some((first, slot.offset + 1)),
                (None, true) => Some((slot.offset, slot.offset + 1)),
                (ended, false) => {
                    write(&mut note, ended);
                    None
                }
            };
        }
        // What the former owner finished and was not read yet is finished for the next one too.
        let mut unread = self.before.unread(self.next);
        if let (Some((_, end)), Some((first, last))) = (&mut run, unread.first().copied())
            && *end == first
        {
            *end = last;
            unread.remove(0);
        }
        write(&mut note, run);
        for range in unread {
            write(&mut note, Some(range));
        }
        note
    }

    fn advance(&mut self) {
        while self
            .slots
            .front()
            .is_some_and(|slot| matches!(slot.state, State::Done))
        {
            self.slots.pop_front();
            self.changed = true;
        }
    }

    fn position(&self, offset: i64) -> Option<usize> {
        self.slots
            .binary_search_by_key(&offset, |slot| slot.offset)
            .ok()
    }

    fn find(&mut self, offset: i64) -> Option<&mut Slot> {
        let at = self.position(offset)?;
        self.slots.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Headers, Origin, Place};
    use bytes::Bytes;

    fn message(offset: i64) -> Arc<Incoming> {
        let place = Place::Kafka {
            topic: "t".into(),
            partition: 0,
            offset,
        };
        let origin = Origin::new("main".into(), place);
        Arc::new(Incoming::new(
            "t".into(),
            Bytes::new(),
            Headers::new(),
            origin,
        ))
    }

    fn out(ledger: &mut Ledger, offsets: &[i64]) {
        for offset in offsets {
            ledger.enter(*offset);
            ledger.hand_out(*offset, message(*offset));
        }
    }

    #[test]
    fn the_watermark_never_passes_an_unfinished_message() {
        let mut ledger = Ledger::new(Note::default());
        // Gaps are what transactions and compaction leave.
        out(&mut ledger, &[5, 6, 9, 10]);
        assert!(ledger.finish(6) && ledger.finish(10));
        assert_eq!(ledger.watermark(), 5);
        assert!(ledger.finish(5));
        assert_eq!(ledger.watermark(), 9);
        assert!(ledger.finish(9));
        assert_eq!(ledger.watermark(), 11);
        assert!(!ledger.finish(9), "once only");
    }

    #[test]
    fn a_random_order_of_finishing_commits_only_what_is_finished() {
        let seed = fastrand::u64(..);
        println!("INTERLINE_TEST_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let mut ledger = Ledger::new(Note::default());
            let mut offsets = Vec::new();
            let mut offset = 0;
            for _ in 0..random.usize(1..60) {
                offset += random.i64(1..4);
                offsets.push(offset);
            }
            out(&mut ledger, &offsets);
            let mut open = offsets.clone();
            random.shuffle(&mut open);
            while let Some(done) = open.pop() {
                assert!(ledger.finish(done));
                let (watermark, note) = ledger.take_commit().expect("something changed");
                let lowest = open.iter().min();
                assert_eq!(watermark, lowest.copied().unwrap_or(offset + 1));
                let note = Note::parse(&note);
                for offset in offsets.iter().filter(|offset| **offset >= watermark) {
                    assert_eq!(note.is_done(*offset), !open.contains(offset), "{note:?}");
                }
            }
        }
    }

    #[test]
    fn the_next_owner_knows_what_was_finished_and_what_was_handed_out() {
        let mut ledger = Ledger::new(Note::default());
        out(&mut ledger, &[0, 1, 2]);
        ledger.enter(3);
        assert!(ledger.finish(1));
        let (offset, note) = ledger.take_commit().unwrap();
        assert_eq!(offset, 0);
        let mut next = Ledger::new(Note::parse(&note));
        let read: Vec<_> = (0..4).map(|offset| next.enter(offset)).collect();
        assert_eq!(read, [Read::Again, Read::Finished, Read::Again, Read::New]);
    }

    #[test]
    fn an_owner_that_read_a_part_hands_on_what_it_was_told_of_the_rest() {
        let told = Note {
            handed_out: 12,
            done: vec![(1, 4), (6, 8), (9, 11)],
        };
        let mut short = Ledger::new(told.clone());
        short.enter(0);
        assert!(short.hand_out(0, message(0)));
        let (offset, note) = short.last_commit().unwrap();
        assert_eq!((offset, Note::parse(&note)), (0, told.clone()));
        // It read into the second range, and finished what lay before it.
        let mut longer = Ledger::new(told);
        longer.enter(0);
        for offset in 1..7 {
            longer.enter(offset);
        }
        assert!(longer.hand_out(5, message(5)) && longer.finish(5));
        let (offset, note) = longer.last_commit().unwrap();
        assert_eq!(offset, 0);
        assert_eq!(note, "interline1 12 1-4 5-8 9-11");
    }

    #[test]
    fn nothing_is_committed_twice_unless_it_failed() {
        let mut ledger = Ledger::new(Note::default());
        assert_eq!(ledger.take_commit(), None);
        out(&mut ledger, &[4]);
        assert_eq!(ledger.take_commit().unwrap().0, 4);
        assert_eq!(ledger.take_commit(), None);
        assert!(ledger.take_back(4).is_some());
        assert!(ledger.take_back(4).is_none());
        assert_eq!(ledger.take_commit(), None);
        ledger.not_committed();
        assert_eq!(ledger.take_commit().unwrap().0, 4);
    }

    #[test]
    fn what_was_given_back_was_seen_and_what_was_not_taken_was_not() {
        let read_next = |ledger: &mut Ledger| {
            let (_, note) = ledger.take_commit().unwrap();
            Ledger::new(Note::parse(&note)).enter(0)
        };
        let mut ledger = Ledger::new(Note::default());
        out(&mut ledger, &[0]);
        assert!(ledger.not_taken(0) && !ledger.not_taken(0));
        assert_eq!(read_next(&mut ledger), Read::New);
        assert!(ledger.hand_out(0, message(0)));
        assert!(ledger.take_back(0).is_some());
        assert_eq!(read_next(&mut ledger), Read::Again);
        assert_eq!(ledger.out(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_that_is_not_the_one_committed_last_is_committed_again() {
        let mut ledger = Ledger::new(Note::default());
        out(&mut ledger, &[4, 5]);
        assert!(ledger.finish(4));
        assert_eq!(ledger.take_commit().unwrap().0, 5);
        assert!(ledger.finish(5));
        assert_eq!(ledger.take_commit().unwrap().0, 6);
        // The later one arrived first.
        ledger.confirmed(6);
        ledger.confirmed(5);
        assert_eq!(
            ledger.take_commit(),
            None,
            "the last answer may be on its way"
        );
        tokio::time::advance(CONFIRMED_WITHIN + Duration::from_millis(1)).await;
        assert_eq!(ledger.take_commit().unwrap().0, 6);
        ledger.confirmed(6);
        tokio::time::advance(2 * CONFIRMED_WITHIN).await;
        assert_eq!(ledger.take_commit(), None);
    }

    #[test]
    fn the_last_commit_is_made_whatever_is_thought_to_be_committed() {
        let mut ledger = Ledger::new(Note::default());
        assert_eq!(ledger.last_commit(), None);
        out(&mut ledger, &[4, 5]);
        assert!(ledger.finish(4));
        let committed = ledger.take_commit();
        assert_eq!(ledger.take_commit(), None);
        // An earlier one may have failed, and nobody has heard of it yet.
        assert_eq!(ledger.last_commit(), committed);
        ledger.close();
        assert!(!ledger.hand_out(5, message(5)), "it is nobody's any more");
    }

    #[test]
    fn a_foreign_note_means_nothing() {
        assert_eq!(Note::parse("deployed by hand"), Note::default());
        assert_eq!(Note::parse("interline1 x 1-y 3"), Note::default());
    }

    #[test]
    fn a_note_stays_below_the_servers_limit() {
        let mut ledger = Ledger::new(Note::default());
        let offsets: Vec<i64> = (1_000_000..1_004_000).collect();
        out(&mut ledger, &offsets);
        for offset in offsets.iter().filter(|offset| *offset % 2 == 1) {
            ledger.finish(*offset);
        }
        let (_, note) = ledger.take_commit().unwrap();
        assert!(note.len() < 4_000, "{}", note.len());
    }
}
