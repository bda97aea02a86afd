//! Which results of keyed appends are surely not in the store, without asking it.
//!
//! Nearly every keyed append is the first with its key, and asking the store for what is not there
//! was the dearest part of deciding one. A conversation that was started by this process has all its
//! results from this process, and so a Bloom filter of what it has kept answers for the store. It
//! errs to one side only: what it says may be there is looked up.

use crate::store::keys::OnceDigest;

/// Blocks of a generation's filter, each a cache line: 4 MiB, which is enough to spare nine look-ups
/// of ten up to five million results a generation. Beyond that it spares fewer.
const BLOCKS: usize = 1 << 16;
/// Bits set for a digest, all in one block.
const BITS: usize = 6;

type Block = [u64; 8];

/// The digests that were kept in the two newest generations.
#[derive(Default)]
pub(super) struct Filter {
    newest: Generation,
    before: Generation,
    /// Something was kept that neither generation has: nothing can be ruled out any more.
    incomplete: bool,
}

/// The digests of one generation; no memory before the first.
#[derive(Default)]
struct Generation {
    number: u32,
    blocks: Vec<Block>,
}

impl Filter {
    /// Notes that a result is kept.
    pub(super) fn keep(&mut self, generation: u32, digest: OnceDigest) {
        if generation > self.newest.number {
            let newest = Generation {
                number: generation,
                blocks: Vec::new(),
            };
            self.before = std::mem::replace(&mut self.newest, newest);
        }
        if generation == self.newest.number {
            self.newest.keep(digest);
        } else if generation == self.before.number {
            self.before.keep(digest);
        } else {
            // The clock was set back by more than a retention.
            self.incomplete = true;
        }
    }

    /// Whether a result may have been kept since the filter was made.
    pub(super) fn may_have(&self, generation: u32, digest: OnceDigest) -> bool {
        let of = [&self.newest, &self.before]
            .into_iter()
            .find(|of| of.number == generation);
        match of {
            _ if self.incomplete => true,
            Some(of) => of.may_have(digest),
            // Later than all that was kept, or so early that it was forgotten.
            None => generation < self.newest.number,
        }
    }
}

impl Generation {
    fn keep(&mut self, digest: OnceDigest) {
        if self.blocks.is_empty() {
            self.blocks = vec![Block::default(); BLOCKS];
        }
        let (block, bits) = place(digest);
        for bit in bits {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    fn may_have(&self, digest: OnceDigest) -> bool {
        let (block, bits) = place(digest);
        self.blocks.get(block).is_some_and(|block| {
            bits.iter()
                .all(|bit| block[bit / 64] >> (bit % 64) & 1 == 1)
        })
    }
}

/// The block of a digest and its bits there: a digest is as good as random, so parts of it do.
fn place(digest: OnceDigest) -> (usize, [usize; BITS]) {
    let part = |index: usize| {
        let bytes = [digest.0[2 * index], digest.0[2 * index + 1]];
        usize::from(u16::from_be_bytes(bytes))
    };
    let bits = std::array::from_fn(|bit| part(bit + 1) % (size_of::<Block>() * 8));
    (part(0) % BLOCKS, bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConversationNumber;

    fn digest(number: u64) -> OnceDigest {
        OnceDigest::new(ConversationNumber(number), "scope", "key")
    }

    #[test]
    fn what_was_kept_is_never_ruled_out_and_little_else_is_let_through() {
        let mut filter = Filter::default();
        for number in 0..10_000 {
            filter.keep(7, digest(number));
        }
        assert!((0..10_000).all(|number| filter.may_have(7, digest(number))));
        let others = (10_000..20_000).filter(|number| filter.may_have(7, digest(*number)));
        assert!(others.count() < 10);
        assert!(!filter.may_have(8, digest(1)), "nothing was kept later");
    }

    #[test]
    fn two_generations_are_known_and_older_ones_may_have_anything() {
        let mut filter = Filter::default();
        filter.keep(7, digest(1));
        filter.keep(8, digest(2));
        assert!(filter.may_have(7, digest(1)) && !filter.may_have(7, digest(2)));
        filter.keep(9, digest(3));
        assert!(filter.may_have(7, digest(2)), "it was forgotten");
        assert!(!filter.may_have(8, digest(3)));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_be_missed() {
        let mut filter = Filter::default();
        filter.keep(7, digest(1));
        filter.keep(8, digest(2));
        filter.keep(3, digest(3));
        assert!(filter.may_have(3, digest(3)) && filter.may_have(8, digest(4)));
    }
}
