//! One blob on its way in, and all who read it meanwhile: who joins and who leads (`flight`), the task that fetches (`task`)
//! over one connection or several (`part`), the readers (`blob_stream`), and one that finds no room (`passage`).

mod blob_stream;
mod flight;
mod part;
mod passage;
mod task;

pub use self::blob_stream::{Blob, BlobReader, BrokenStream};
pub(super) use self::blob_stream::{Heal, Source, ready};
pub use self::flight::{Boarding, FillReport, Flights, Pilot, Progress, Seat};
pub use self::passage::Passage;
pub use self::task::Fill;
