//! Live media: batches of records as they come, and the pages they prove.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use iceshare::icet::key::Hash;
use iceshare::icet::{Manifest, Now, PageSet, SignedManifest, frame, limits};
use iceshare::live::{Broadcaster, Signed};
use iceshare::ogg::PageHeader;
use iceshare::protocol::{ErrorKind, Piece, Request, What};
use iceshare::store::{MediaStore, Window};

use crate::failure::ensure;
use crate::world::{Peer, World, next, path};
use crate::{Failure, media};

/// The first page that the host holds: who came in the middle holds none before.
const FIRST: usize = 4;

/// A broadcast of the host: its media, without a page, and what its broadcaster signed.
fn broadcast(host: &Peer, count: usize) -> Result<(Arc<MediaStore>, Vec<Signed>), Failure> {
    let manifest = Manifest { version: 1, ..Manifest::live(path("live/kit")?, host.key(), Hash([7; 32])) };
    let manifest = SignedManifest::sign(manifest, &host.identity)?;
    let mut broadcaster = Broadcaster::new(&manifest, host.identity.clone(), Duration::from_millis(250));
    let (mut now, mut signed) = (Now::ZERO, Vec::new());
    for page in media::pages(3, media::mixed(3, count)) {
        let header = PageHeader::parse(&page)?;
        broadcaster.page(now, &header, page)?;
        now = now + Duration::from_millis(60);
        signed.extend(broadcaster.poll(now)?);
    }
    broadcaster.end();
    while let Some(more) = broadcaster.poll(now)? {
        signed.push(more);
    }
    ensure!(signed.len() > 2 * FIRST, "the suite's own broadcast: only {} batches", signed.len());
    Ok((host.store.listen(manifest, Window::default())?, signed))
}

fn put(media: &MediaStore, signed: &[Signed]) -> Result<(), Failure> {
    for s in signed {
        media.put_batch(s.batch.signed().clone())?;
        media.put_pages(s.batch.first, &s.pages)?;
    }
    Ok(())
}

fn request(world: &World, media: &MediaStore, what: What) -> Request {
    Request {
        host: world.host.address(),
        path: media.path().clone(),
        media: media.id(),
        version: media.manifest().version,
        what,
        ticket: None,
    }
}

/// Records and pages come as they are, while they come and up to the end of the broadcast.
pub(super) async fn comes(world: &World) -> Result<(), Failure> {
    let (media, signed) = broadcast(&world.host, 120)?;
    let (early, later) = signed.split_at(2 * FIRST);
    put(&media, &early[FIRST..])?;
    world.host.shelf.put(media.clone());
    let first = signed[FIRST].batch.first;
    let records = What::Proofs { first, last: limits::PAGES - 1 };
    let pages = What::Pages(PageSet { first, last: None, stripe: None });
    let wanted = [
        (
            records,
            signed[FIRST..].iter().map(|s| frame::encode(s.batch.signed())).collect::<Vec<_>>().concat(),
        ),
        (
            pages,
            signed[FIRST..]
                .iter()
                .flat_map(|s| s.pages.iter())
                .fold(Vec::new(), |all, p| [&all, &p[..]].concat()),
        ),
    ];
    let mut streams = wanted.map(|(what, all)| (world.stream(request(world, &media, what)), all, Vec::new()));
    // What is there comes at once, the rest when it is put.
    let mut rest = Some(later);
    for (stream, all, got) in &mut streams {
        while got.len() < all.len() {
            match next(stream).await? {
                Some(Ok(Piece::Bytes(b))) => got.extend_from_slice(&b),
                Some(Ok(Piece::Page(_))) => {}
                Some(Ok(other)) => return Err(Failure::new(format!("{other:?} of live media"))),
                Some(Err(e)) => return Err(e.into()),
                None => {
                    return Err(Failure::new(format!("it ends after {} of {} bytes", got.len(), all.len())));
                }
            }
            if let Some(rest) = rest.take() {
                put(&media, rest)?;
            }
        }
        ensure!(got == all, "other bytes than the host holds");
        ensure!(stream.next().await.is_none(), "it does not end where the broadcast does");
    }
    // What lies before the window is not there, now or later.
    let gone = What::Pages(PageSet { first: 0, last: None, stripe: None });
    world.refused(request(world, &media, gone), ErrorKind::NoRange).await
}
