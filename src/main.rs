//! The `larder` program: everything is in the library.

fn main() -> std::process::ExitCode {
    larder::cli::main()
}
