//! A recorded run repeats itself, bit by bit; what is no log is refused.

use std::time::Duration;

use icet::Now;
use icet::message::Intent;
use proptest::prelude::*;

use super::super::ConnId;
use super::super::record::{Input, Record, Replay, ReplayError};
use super::fixture::{identity, media};
use super::sim::Sim;
use super::world::World;

fn replay(log: &[Vec<u8>]) -> Result<Replay, (usize, ReplayError)> {
    let mut replay = Replay::default();
    for (i, record) in log.iter().enumerate() {
        let record = Record::from_bytes(record).unwrap_or_else(|e| panic!("record {i}: {e}"));
        replay.take(record).map_err(|e| (i, e))?;
    }
    Ok(replay)
}

fn crowd() -> Vec<Vec<u8>> {
    let mut w = World::new();
    w.record();
    let mut sim = Sim::within(w, 1200, 4000, 1e6, &[1.0, 60e3, 250e3, 250e3, 1.2e6, 60e3]);
    sim.run(Duration::from_secs(600));
    sim.w.log.take().unwrap().0
}

#[test]
fn a_swarm_repeats_itself_from_its_log() {
    let log = crowd();
    let done = replay(&log).unwrap_or_else(|(i, e)| panic!("record {i}: {e}"));
    let (inputs, checks) = done.counts();
    assert!(inputs > 500 && checks > 100, "{inputs} {checks}");
    let totals = done.swarm().unwrap().totals();
    assert!(totals.acked_pages >= 6 * 1200, "{totals:?}");
    // The same with a byte of the seed changed is another run, and that is seen and said where.
    let mut other = log.clone();
    let Record::Made(mut config) = Record::from_bytes(&other[0]).unwrap() else { panic!() };
    config.seed ^= 1;
    other[0] = Record::Made(config).to_bytes();
    let (at, why) = replay(&other).unwrap_err();
    assert!(at > 0 && why.to_string().contains("the effects are others"), "{why}");
    assert!(matches!(why, ReplayError::Differs { input, .. } if input > 0));
}

#[test]
fn a_log_has_no_secret() {
    let log = crowd();
    let secret = super::world::SECRET;
    assert!(!log.iter().any(|r| r.windows(8).any(|w| w == &secret[..8])));
}

#[test]
fn records_out_of_order_are_refused() {
    let mut w = World::new();
    w.record();
    w.peer(1);
    let log = w.log.take().unwrap().0;
    assert!(matches!(replay(&log[1..]), Err((0, ReplayError::Order))));
    let twice = [log[0].clone(), log[0].clone()];
    assert!(matches!(replay(&twice), Err((1, ReplayError::Order))));
}

/// A short run: two peers, a media, an hour.
fn short() -> Vec<Vec<u8>> {
    let mut w = World::new();
    w.record();
    let p = w.peer(1);
    let (manifest, slices) = media(&identity(1), "film", 1, 200, 4000);
    w.publish(p, &(manifest, slices));
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let queue = w.assigned(r);
    queue.iter().for_each(|a| w.done(r, a));
    w.pass(Duration::from_secs(20));
    w.disconnect(r);
    w.log.take().unwrap().0
}

#[test]
fn what_no_tracker_does_is_refused() {
    let log = short();
    let at = log.iter().rposition(|r| matches!(Record::from_bytes(r), Ok(Record::Input(_)))).unwrap();
    let put = |input: Input| {
        let mut log = log.clone();
        log.insert(at, input.to_bytes());
        replay(&log).unwrap_err().1
    };
    for now in [Now(0), Now(u64::MAX)] {
        let e = put(Input::Timeout { now, wall_ms: 0 });
        assert!(matches!(e, ReplayError::Senseless(_)), "{e}");
    }
    let e = put(Input::Timeout { now: Now(21_000_000), wall_ms: u64::MAX });
    assert!(matches!(e, ReplayError::Senseless(_)), "{e}");
    let again = log
        .iter()
        .find(|r| matches!(Record::from_bytes(r), Ok(Record::Input(Input::Connect { conn: ConnId(1), .. }))));
    let twice = [&log[..2], &[again.unwrap().clone()]].concat();
    assert!(matches!(replay(&twice), Err((2, ReplayError::Senseless(_)))));
}

/// Of each record each byte is changed, one at a time: whatever a log says, it is an error or it is replayed.
#[test]
fn a_log_with_a_wrong_byte_does_no_harm() {
    let log = short();
    let mut same = 0;
    for i in 0..log.len() {
        // Long ones are signed manifests and slices: some of their bytes do.
        let step = (log[i].len() / 4).max(1);
        for at in (0..log[i].len()).step_by(step) {
            let mut changed = log.clone();
            changed[i][at] ^= 1 << (at % 8);
            let mut replay = Replay::default();
            let whole = changed.iter().try_for_each(|r| {
                let record = Record::from_bytes(r).map_err(|e| e.to_string())?;
                replay.take(record).map_err(|e| e.to_string())
            });
            same += usize::from(whole.is_ok());
        }
    }
    eprintln!("{same} changes made no difference");
}

proptest! {
    #[test]
    fn garbage_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..12) {
        let _ = Record::from_bytes(&bytes);
        let _ = Record::from_bytes(&[&[kind][..], &bytes].concat());
    }
}
