//! Tickets, and keys.

use iceshare::icet::ticket::TicketBody;
use iceshare::icet::{Identity, MediaId, PageSet, PeerKey, Ticket};
use iceshare::protocol::{ErrorKind, Request};
use iceshare::shelf::Anonymous;

use crate::failure::ensure;
use crate::media::Media;
use crate::receive::Expected;
use crate::world::{EPOCH, next, wall_ms};
use crate::{Failure, Options, Subject, World};

const DENY: Options = Options { up: None, anonymous: Anonymous::Deny };

/// That a request with this ticket is admitted, and brings nothing wrong.
async fn admitted(world: &World, media: &Media, pages: PageSet, ticket: Ticket) -> Result<(), Failure> {
    let what = world.unit(media, pages);
    let expected = Expected::of(media, what.clone());
    let request = Request { ticket: Some(ticket), ..world.request(media, what) };
    let (_, end) = world.fetch(request, &expected).await?;
    end.map_err(|e| Failure::new(format!("a good ticket is refused: {:?} ({e})", e.kind)))
}

pub(super) async fn needed(s: &Subject) -> Result<(), Failure> {
    let world = World::with(s, DENY).await?;
    let media = world.music(60)?;
    let pages = PageSet::range(0, 20);
    let what = world.unit(&media, pages);
    world.refused(world.request(&media, what.clone()), ErrorKind::Denied).await?;
    ensure!(world.host.served() == 0, "{} bytes were sent without a ticket", world.host.served());
    let request = world.ticketed(&media, what, pages, 1);
    admitted(&world, &media, pages, request.ticket.ok_or_else(|| Failure::new("no ticket"))?).await?;
    world.end().await;
    Ok(())
}

pub(super) async fn refused(s: &Subject) -> Result<(), Failure> {
    for options in [DENY, Options::default()] {
        let world = World::with(s, options).await?;
        let media = world.music(400)?;
        let pages = PageSet::range(2, 20);
        let good = world.host.ticket_body(&media, &world.receiver.key(), pages, 1);
        let sign = |body: TicketBody| world.host.issue(&body);
        let other_name = format!("not-{}", &world.host.name().as_str()[..1]).parse()?;
        let mut forged = sign(good.clone());
        forged.mac.0[7] ^= 1;
        let mut altered = sign(good.clone());
        let mut body = altered.body.to_vec();
        if let Some(last) = body.last_mut() {
            *last ^= 1;
        }
        altered.body = body.into();
        let garbage = Ticket { body: vec![0xff; 300].into(), ..forged.clone() };
        for (why, ticket) in [
            ("forged", forged),
            ("altered", altered),
            ("garbage", garbage),
            ("expired", sign(TicketBody { expiry: wall_ms() - 60_000, ..good.clone() })),
            ("for another media", sign(TicketBody { media: MediaId([1; 32]), ..good.clone() })),
            ("for another version", sign(TicketBody { version: good.version + 1, ..good.clone() })),
            ("for other pages", sign(TicketBody { pages: PageSet::range(300, 310), ..good.clone() })),
            ("for another protocol", sign(TicketBody { protocol: other_name, ..good.clone() })),
            ("for another host", sign(TicketBody { host: PeerKey([3; 32]), ..good.clone() })),
            ("of another tracker", sign(TicketBody { tracker: PeerKey([4; 32]), ..good.clone() })),
            ("of an old epoch", sign(TicketBody { epoch: EPOCH - 2, ..good.clone() })),
        ] {
            let what = world.unit(&media, pages);
            let request = Request { ticket: Some(ticket), ..world.request(&media, what) };
            world.refused(request, ErrorKind::Denied).await.map_err(|e| e.when(format!("a ticket {why}")))?;
        }
        ensure!(world.host.served() == 0, "{} bytes were sent for bad tickets", world.host.served());
        admitted(&world, &media, pages, sign(good)).await?;
        world.end().await;
    }
    Ok(())
}

pub(super) async fn used_up(s: &Subject) -> Result<(), Failure> {
    let world = World::with(s, Options { up: Some(100_000), anonymous: Anonymous::Deny }).await?;
    let media = world.music(120)?;
    let pages = PageSet::range(20, 60);
    let what = world.unit(&media, pages);
    let expected = Expected::of(&media, what.clone());
    let request = || world.ticketed(&media, what.clone(), pages, 5);
    let mut stream = world.stream(request());
    let first = next(&mut stream).await?;
    ensure!(matches!(first, Some(Ok(_))), "a good ticket: {first:?}");
    // While it is in use.
    world.refused(request(), ErrorKind::Busy).await.map_err(|e| e.when("the ticket is in use"))?;
    while let Some(piece) = next(&mut stream).await? {
        piece?;
    }
    let bought = expected.bytes.len() as u64 * 5 / 4;
    let mut denied = false;
    for _ in 0..3 {
        let (_, end) = world.fetch(request(), &expected).await?;
        denied |= end.is_err();
    }
    ensure!(denied, "the ticket was used four times, and nothing ended with an error");
    let served = world.host.served();
    ensure!(served <= bought, "{served} bytes were sent for a ticket that buys {bought}");
    world.end().await;
    Ok(())
}

pub(super) async fn of_another_receiver(s: &Subject) -> Result<(), Failure> {
    let world = World::with(s, DENY).await?;
    let media = world.music(60)?;
    let pages = PageSet::range(0, 20);
    let other = Identity::from_seed(&[77; 32]).key();
    let stolen = world.host.issue(&world.host.ticket_body(&media, &other, pages, 1));
    let request = Request { ticket: Some(stolen), ..world.request(&media, world.unit(&media, pages)) };
    world.refused(request, ErrorKind::Denied).await?;
    ensure!(world.host.served() == 0, "{} bytes were sent for a stolen ticket", world.host.served());
    world.end().await;
    Ok(())
}

/// That a host with another key than the request's is refused, before it gets the ticket.
pub(super) async fn wrong_key(world: &World, media: &Media) -> Result<(), Failure> {
    let pages = PageSet::range(0, 20);
    let before = world.host.shelf.served_totals();
    let mut request = world.ticketed(media, world.unit(media, pages), pages, 99);
    request.host.key = Identity::from_seed(&[66; 32]).key();
    world.refused(request, ErrorKind::WrongKey).await?;
    let after = world.host.shelf.served_totals();
    ensure!(after == before, "the wrong host was asked all the same: {after:?}");
    Ok(())
}

pub(super) async fn another_host_answers(s: &Subject) -> Result<(), Failure> {
    let world = World::with(s, DENY).await?;
    let media = world.music(60)?;
    wrong_key(&world, &media).await?;
    // The right one is not taken for it, nor the other way round, whatever is kept open.
    let pages = PageSet::range(0, 20);
    let good =
        |number| world.host.issue(&world.host.ticket_body(&media, &world.receiver.key(), pages, number));
    admitted(&world, &media, pages, good(1)).await?;
    wrong_key(&world, &media).await.map_err(|e| e.when("after a good request"))?;
    admitted(&world, &media, pages, good(2)).await?;
    world.end().await;
    Ok(())
}
