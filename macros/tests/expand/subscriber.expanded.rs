pub async fn charge(
    order: OrderPlaced,
    bank: State<Bank>,
    tenant: Tenant,
) -> Result<Charged, ChargeError> {
    bank.charge(order, tenant).await
}
#[doc(hidden)]
#[allow(
    dead_code,
    missing_debug_implementations,
    non_camel_case_types,
    unreachable_pub,
    reason = "the companion of a function, named like it"
)]
pub struct charge {}
const _: () = {
    use ::interline::__private;
    use crate::write_interline_service_at_the_crate_root::ThisCrate;
    struct __Handler;
    impl __private::TakesPayload for __Handler {
        type Payload = OrderPlaced;
    }
    impl __private::Takes<0usize> for __Handler {
        type Argument = State<Bank>;
    }
    impl __private::TakesText<1usize> for __Handler {
        type Value = Tenant;
    }
    impl __private::Returns for __Handler {
        type Output = Result<Charged, ChargeError>;
    }
    const _: () = ::core::assert!(
        __private::all_keyed(__private::contracts:: < __Handler > ()),
        "`ordered_by = key` needs a key, and `OrderPlaced` has none; name the field: #[message(topic = \"..\", key = order_id)]"
    );
    impl __private::AlreadySubscribed<
        {
            __private::claim(
                "",
                <ThisCrate as __private::ThisCrate>::IDENTITY.name,
                __private::contracts::<__Handler>(),
            )
        },
    > for ThisCrate {}
    fn __bind(
        __bind: &mut __private::Bind<'_>,
    ) -> ::core::option::Option<__private::Handler> {
        let __argument0 = __private::argument::<__Handler, 0usize>(__bind);
        let __argument0 = __argument0?;
        ::core::option::Option::Some(
            __private::Handler::one(move |
                __incoming: __private::Arc<__private::Incoming>,
                __scope: __private::Scope|
            {
                let __argument0 = __argument0.share();
                async move {
                    let __payload = match __private::read::<
                        __Handler,
                    >(&__incoming, &__scope) {
                        ::core::result::Result::Ok(__value) => __value,
                        ::core::result::Result::Err(__outcome) => return __outcome,
                    };
                    let __argument0 = match __argument0.take(&__incoming, &__scope) {
                        ::core::result::Result::Ok(__value) => __value,
                        ::core::result::Result::Err(__outcome) => return __outcome,
                    };
                    let __argument1 = match __private::take_header::<
                        __Handler,
                        1usize,
                    >(&__incoming, "x-tenant") {
                        ::core::result::Result::Ok(__value) => __value,
                        ::core::result::Result::Err(__outcome) => return __outcome,
                    };
                    __private::finish::<
                        __Handler,
                    >(charge(__payload, __argument0, __argument1).await, &__scope)
                }
            }),
        )
    }
    impl __private::Subscriber for charge {
        const DESCRIPTOR: &'static __private::SubscriberDescriptor = &__private::SubscriberDescriptor::new(
                "charge",
                ::core::module_path!(),
                <ThisCrate as __private::ThisCrate>::IDENTITY,
                __private::Source::Contracts(__private::contracts::<__Handler>()),
                __private::SubscriberOptions::UNSET
                    .concurrency(16u32)
                    .ordered_by(__private::OrderedBy::Key)
                    .retry(
                        __private::RetryOptions::UNSET
                            .attempts(6u32)
                            .first(::core::time::Duration::from_millis(250u64)),
                    ),
                __bind,
                __private::Location {
                    file: ::core::file!(),
                    line: ::core::line!(),
                    column: ::core::column!(),
                },
            )
            .publishes(__private::publishes::<__Handler>)
            .replies(__private::replies::<__Handler>);
    }
    __private::inventory::submit! {
        __private::Registration::Subscriber(< charge as __private::Subscriber >
        ::DESCRIPTOR,)
    }
};
