#[doc(hidden)]
pub mod write_interline_service_at_the_crate_root {
    #[derive(::core::fmt::Debug)]
    pub struct ThisCrate;
}
/// This crate's service, for `App::with`.
#[must_use]
pub fn service() -> ::interline::registry::Service {
    ::interline::registry::Service::new(
        <write_interline_service_at_the_crate_root::ThisCrate as ::interline::__private::ThisCrate>::IDENTITY,
    )
}
const _: () = {
    use ::interline::__private;
    const _: () = ::core::assert!(
        __private::is_crate_root(::core::module_path!()),
        "`service!` stands at the root of its crate, in lib.rs or main.rs, not in a module"
    );
    impl __private::ThisCrate for write_interline_service_at_the_crate_root::ThisCrate {
        const IDENTITY: &'static __private::ServiceIdentity = &__private::ServiceIdentity::new(
            "billing",
            ::core::env!("CARGO_PKG_NAME"),
            ::core::env!("CARGO_PKG_VERSION"),
            ::core::module_path!(),
            ::core::option_env!("CARGO_BIN_NAME").is_some(),
            __private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
                column: ::core::column!(),
            },
        );
    }
    __private::inventory::submit! {
        __private::Registration::Service(<
        write_interline_service_at_the_crate_root::ThisCrate as __private::ThisCrate >
        ::IDENTITY,)
    }
};
