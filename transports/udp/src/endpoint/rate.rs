//! How often strangers are heard.

use std::time::Duration;

use iceshare::icet::Now;

const SECOND: Duration = Duration::from_secs(1);

/// So many a second, evenly; so many at once, if there were none for a second.
#[derive(Debug)]
pub(super) struct Bucket {
    each: Duration,
    /// When all that was taken so far would have come evenly.
    paid: Now,
}

impl Bucket {
    pub(super) fn new(a_second: u32) -> Bucket {
        Bucket { each: SECOND / a_second.max(1), paid: Now::ZERO }
    }

    pub(super) fn take(&mut self, now: Now) -> bool {
        let paid = self.paid.max(now) + self.each;
        let some = paid <= now + SECOND;
        if some {
            self.paid = paid;
        }
        some
    }

    /// When there is one again, if there is none.
    pub(super) fn refilled(&self) -> Now {
        Now::ZERO + (self.paid + self.each).since(Now::ZERO + SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_share() {
        let mut bucket = Bucket::new(10);
        let taken = |b: &mut Bucket, now| (0..20).filter(|_| b.take(now)).count();
        assert_eq!((taken(&mut bucket, Now(5)), taken(&mut bucket, Now(90_000))), (10, 0));
        assert_eq!(bucket.refilled(), Now(100_005));
        assert_eq!(taken(&mut bucket, Now(100_005)), 1);
        assert_eq!(taken(&mut bucket, Now(400_005)), 3);
        assert_eq!(taken(&mut bucket, Now(9_000_000)), 10);
    }
}
