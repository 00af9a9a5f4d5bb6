use std::sync::mpsc;

use super::*;
use crate::catalogue::Contents;
use crate::catalogue::disk::tests::media;
use crate::catalogue::samples::identity;

/// A disk whose writes go through one by one, as the test lets them.
struct Gate {
    allow: Mutex<mpsc::Receiver<Result<(), ()>>>,
    written: Mutex<Vec<Vec<Store>>>,
}

impl Persist for Gate {
    fn begin(&self) -> Result<Contents, CatalogueError> {
        Ok(Contents::default())
    }
    fn commit(&self, writes: &[Store]) -> Result<(), CatalogueError> {
        match self.allow.lock().unwrap().recv() {
            Ok(Err(())) => Err(CatalogueError::Io { file: "f".into(), why: "disk full".into() }),
            _ => {
                self.written.lock().unwrap().push(writes.to_vec());
                Ok(())
            }
        }
    }
    fn slices(&self, _: &MediaId, _: u64, _: &[u64]) -> Result<Vec<ProvenSlice>, CatalogueError> {
        Ok(Vec::new())
    }
    fn contribution(&self, _: &PeerKey) -> Result<Contribution, CatalogueError> {
        Ok(Contribution::default())
    }
}

fn gate() -> (Arc<Gate>, mpsc::Sender<Result<(), ()>>) {
    let (tx, rx) = mpsc::channel();
    (Arc::new(Gate { allow: Mutex::new(rx), written: Mutex::default() }), tx)
}

#[tokio::test]
async fn reads_see_what_is_not_on_disk_yet() {
    let (gate, allow) = gate();
    let writer = Writer::start(gate.clone(), Vec::new()).unwrap();
    let (manifest, slices) = media(1, "a", 1, 2);
    let id = manifest.id();
    writer.submit(Store::Manifest { manifest });
    let places: Vec<Durable> = slices.into_iter().map(|s| writer.submit(s)).collect();
    let last = places[1];
    assert_eq!(writer.slices(&id, 1, &[1, 0, 5]).unwrap().len(), 2);
    assert!(writer.slices(&id, 2, &[0]).unwrap().is_empty());
    let peer = identity(3).key();
    let contribution = Contribution { sent: 1, received: 2 };
    writer.submit(Store::Contribution { peer, contribution });
    assert_eq!(writer.contribution(&peer).unwrap(), contribution);
    drop(allow);
    writer.durable(last).await.unwrap();
    writer.close().unwrap();
    let written = gate.written.lock().unwrap().concat();
    assert_eq!(written.len(), 4);
}

#[tokio::test]
async fn a_write_that_fails_is_told_and_tried_again_in_order() {
    let (gate, allow) = gate();
    let writer = Writer::start(gate.clone(), Vec::new()).unwrap();
    allow.send(Err(())).unwrap();
    let (manifest, slices) = media(1, "a", 1, 1);
    let first = writer.submit(Store::Manifest { manifest });
    let e = writer.durable(first).await.unwrap_err();
    assert!(e.contains("disk full"), "{e}");
    // It waits behind what fails, and whoever waits for it must not wait for ever.
    let last = writer.submit(slices[0].clone());
    assert_eq!(writer.durable(last).await.unwrap_err(), e);
    drop(allow);
    writer.shared.progress.subscribe().wait_for(|p| p.trouble.is_none()).await.unwrap();
    writer.durable(last).await.unwrap();
    writer.durable(first).await.unwrap();
    writer.close().unwrap();
    let written = gate.written.lock().unwrap().concat();
    assert!(matches!(written[..], [Store::Manifest { .. }, Store::Slice { .. }]), "{written:?}");
}

#[test]
fn only_the_last_value_of_a_figure_is_written_and_closing_writes_it() {
    let (gate, allow) = gate();
    drop(allow);
    let writer = Writer::start(gate.clone(), Vec::new()).unwrap();
    let (manifest, _) = media(1, "a", 1, 1);
    for hits in 1..=1000 {
        writer.submit(Store::Hits { media: manifest.id(), hits });
    }
    writer.close().unwrap();
    let written = gate.written.lock().unwrap().concat();
    assert!(matches!(written[..], [Store::Hits { hits: 1000, .. }]), "{} writes", written.len());
}

#[test]
fn a_withdrawal_takes_the_hits_with_it() {
    let (gate, allow) = gate();
    drop(allow);
    let writer = Writer::start(gate.clone(), Vec::new()).unwrap();
    let (manifest, _) = media(1, "a", 1, 1);
    let id = manifest.id();
    writer.submit(Store::Hits { media: id, hits: 5 });
    writer.submit(Store::Withdrawn { media: id });
    writer.close().unwrap();
    let written = gate.written.lock().unwrap().concat();
    assert!(matches!(written[..], [Store::Withdrawn { .. }]), "{written:?}");
}
