async fn store(readings: Batch<Reading>, database: State<Database>) -> BatchOutcome {
    database.store(readings).await
}
#[doc(hidden)]
#[allow(
    dead_code,
    missing_debug_implementations,
    non_camel_case_types,
    unreachable_pub,
    reason = "the companion of a function, named like it"
)]
struct store {}
const _: () = {
    use ::interline::__private;
    use crate::write_interline_service_at_the_crate_root::ThisCrate;
    struct __Handler;
    impl __private::TakesForeign for __Handler {
        type Payload = Reading;
    }
    impl __private::Takes<0usize> for __Handler {
        type Argument = State<Database>;
    }
    impl __private::ReturnsBatch for __Handler {
        type Output = BatchOutcome;
    }
    impl __private::AlreadySubscribed<
        {
            __private::claim_topic(
                "",
                <ThisCrate as __private::ThisCrate>::IDENTITY.name,
                "readings",
            )
        },
    > for ThisCrate {}
    fn __bind(
        __bind: &mut __private::Bind<'_>,
    ) -> ::core::option::Option<__private::Handler> {
        let __argument0 = __private::argument::<__Handler, 0usize>(__bind);
        let __argument0 = __argument0?;
        ::core::option::Option::Some(
            __private::Handler::batch(move |
                __incoming: __private::Vec<__private::Arc<__private::Incoming>>,
                __scope: __private::Scope|
            {
                let __argument0 = __argument0.share();
                async move {
                    let ::core::option::Option::Some(__first) = __private::first(
                        &__incoming,
                    ) else {
                        return __private::Vec::new();
                    };
                    let __argument0 = match __argument0.take(&__first, &__scope) {
                        ::core::result::Result::Ok(__value) => __value,
                        ::core::result::Result::Err(__outcome) => {
                            return __private::for_each(__outcome, __incoming.len());
                        }
                    };
                    __private::batch::<
                        __Handler,
                        _,
                        _,
                    >(
                            __incoming,
                            &__scope,
                            |__message| __private::read_foreign::<
                                __Handler,
                            >(&__message, &__scope),
                            |__batch| store(__batch, __argument0),
                        )
                        .await
                }
            }),
        )
    }
    impl __private::Subscriber for store {
        const DESCRIPTOR: &'static __private::SubscriberDescriptor = &__private::SubscriberDescriptor::new(
                "store",
                ::core::module_path!(),
                <ThisCrate as __private::ThisCrate>::IDENTITY,
                __private::Source::Topic {
                    topic: "readings",
                    on_unknown: __private::OnUnknown::Skip,
                },
                __private::SubscriberOptions::UNSET
                    .on_unknown(__private::OnUnknown::Skip)
                    .batch(
                        __private::BatchOptions::new(
                            200u32,
                            ::core::time::Duration::from_millis(50u64),
                        ),
                    ),
                __bind,
                __private::Location {
                    file: ::core::file!(),
                    line: ::core::line!(),
                    column: ::core::column!(),
                },
            )
            .batch()
            .publishes(__private::batch_publishes::<__Handler>);
    }
    __private::inventory::submit! {
        __private::Registration::Subscriber(< store as __private::Subscriber >
        ::DESCRIPTOR,)
    }
};
