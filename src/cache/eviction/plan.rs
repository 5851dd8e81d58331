//! Which images go when room is needed. Pure: what is here, how long ago it was used and what must stay go in, a list of
//! images comes out.
//!
//! What goes is images, never blobs by themselves: a blob goes with the last image that needs it. First what no tag
//! reaches, then the least recently used; content that no image needs and that was used lately after them, and those whose
//! upstream is out of order only after all others. One of which something is on its way in stays.

use std::cmp::Reverse;

/// Some content.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The disk that it uses, in bytes.
    pub bytes: u64,
    /// Whether it stays whatever happens to its images: it is hosted, or on its way in.
    pub stays: bool,
}

/// Whether an image may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No tag reaches it, and it has not just come: it goes first.
    Leftover,
    /// It may go.
    Ordinary,
    /// No image, but content that was used lately and that no manifest here names: the one that does may be about to come.
    /// It goes when no image is left that could be had again.
    Loose,
    /// Only if nothing else is left: it could not be had again now.
    Irreplaceable,
    /// Something of it is on its way in: it stays, or the pull that makes room would undo itself.
    Filling,
    /// It stays.
    Pinned,
}

/// An image: all that has to be here for one to be pulled.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it needs, by its place in the list of pieces. Each once.
    pub pieces: Box<[u32]>,
    /// When it was last used, in seconds since 1970.
    pub last_used: u64,
    /// Whether it may go.
    pub standing: Standing,
}

/// What goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The images, in their order.
    pub images: Vec<usize>,
    /// The disk that is free afterwards and was not before, in bytes; less than was asked for if there is no more.
    pub freed: u64,
}

/// Frees at least `bytes`, if that can be done.
pub fn plan(images: &[Image], pieces: &[Piece], bytes: u64) -> Plan {
    let mut needed = vec![0u32; pieces.len()];
    for piece in images.iter().flat_map(|image| &image.pieces) {
        needed[*piece as usize] += 1;
    }
    let mut order: Vec<usize> = (0..images.len()).filter(|image| images[*image].standing < Standing::Filling).collect();
    order
        .sort_by_key(|image| (images[*image].standing, images[*image].last_used, Reverse(images[*image].pieces.len())));
    let mut plan = Plan::default();
    for image in order {
        if plan.freed >= bytes {
            break;
        }
        for piece in &images[image].pieces {
            let piece = *piece as usize;
            needed[piece] -= 1;
            if needed[piece] == 0 && !pieces[piece].stays {
                plan.freed += pieces[piece].bytes;
            }
        }
        plan.images.push(image);
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            1 => Just(Standing::Leftover),
            4 => Just(Standing::Ordinary),
            1 => Just(Standing::Loose),
            1 => Just(Standing::Irreplaceable),
            1 => Just(Standing::Filling),
            1 => Just(Standing::Pinned)
        ]
    }

    fn scene() -> impl Strategy<Value = (Vec<Image>, Vec<Piece>, u64)> {
        let pieces = prop::collection::vec((1u64..100, prop::bool::weighted(0.1)), 1..30);
        let pieces =
            pieces.prop_map(|all| all.into_iter().map(|(bytes, stays)| Piece { bytes, stays }).collect::<Vec<_>>());
        pieces.prop_flat_map(|pieces| {
            let image =
                (prop::collection::hash_set(0..pieces.len() as u32, 1..=pieces.len().min(6)), 0u64..20, standing());
            let image = image.prop_map(|(needs, last_used, standing)| Image {
                pieces: needs.into_iter().collect(),
                last_used,
                standing,
            });
            (prop::collection::vec(image, 0..20), Just(pieces), 0u64..1500)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_rules_hold_and_enough_goes_or_all_that_may((images, pieces, bytes) in scene()) {
            let plan = plan(&images, &pieces, bytes);
            let is_gone = |image: &usize| plan.images.contains(image);
            let stay: Vec<usize> = (0..images.len()).filter(|image| !is_gone(image)).collect();
            let needed = |piece: usize| stay.iter().any(|image| images[*image].pieces.contains(&(piece as u32)));
            let freed: u64 = (0..pieces.len())
                .filter(|piece| !needed(*piece) && !pieces[*piece].stays)
                .filter(|piece| images.iter().any(|image| image.pieces.contains(&(*piece as u32))))
                .map(|piece| pieces[piece].bytes)
                .sum();
            prop_assert_eq!(plan.freed, freed, "what is freed is what no image that stays needs");
            prop_assert!(plan.images.iter().all(|image| images[*image].standing < Standing::Filling));
            let may_go = |image: &usize| images[*image].standing < Standing::Filling;
            prop_assert!(freed >= bytes || !stay.iter().any(may_go), "enough, or all");
            for gone in &plan.images {
                for other in stay.iter().filter(|image| may_go(image)) {
                    let (gone, other) = (&images[*gone], &images[*other]);
                    prop_assert!((gone.standing, gone.last_used) <= (other.standing, other.last_used), "oldest first");
                }
            }
            // And no image more than it takes.
            if let Some((_, without_last)) = plan.images.split_last() {
                let stay = |piece: usize| (0..images.len()).any(|image| !without_last.contains(&image) && images[image].pieces.contains(&(piece as u32)));
                let freed: u64 = (0..pieces.len()).filter(|piece| !stay(*piece) && !pieces[*piece].stays)
                    .filter(|piece| images.iter().any(|image| image.pieces.contains(&(*piece as u32))))
                    .map(|piece| pieces[piece].bytes).sum();
                prop_assert!(freed < bytes);
            }
        }
    }
}
