// SN_BOX(function): what m.impl takes of a function whose parameters may be groups, structs that stand for several
// arguments of the schema one after the other. (TORCH_BOX wants a parameter for each.) Results may be groups, too.
//
// A group lists its fields, which may be groups, in the order of the schema:
//   template <class F> void fields(const F& f) { f(in_ptr, out_ptr); }
#pragma once
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "checks.h"

namespace spherenet::ops {

struct Ignore {
  template <class... T>
  void operator()(T&...) const {}
};
template <class T, class = void>
struct IsGroup : std::false_type {};
template <class T>
struct IsGroup<T, std::void_t<decltype(std::declval<T&>().fields(Ignore{}))>> : std::true_type {};

// The dispatcher's stack: arguments are taken from it in order, then results put in their place.
class Stack {
 public:
  explicit Stack(StableIValue* first) : first_(first) {}

  template <class T>
  T take() {
    if constexpr (IsGroup<T>::value) {
      T group;
      group.fields([&](auto&... field) { ((field = take<std::decay_t<decltype(field)>>()), ...); });
      return group;
    } else {
      return torch::stable::detail::to<T>(first_[count_++]);
    }
  }

  template <class T>
  void put(T result) {
    if constexpr (IsGroup<T>::value) {
      result.fields([&](auto&... field) { (put(field), ...); });
    } else {
      first_[count_++] = torch::stable::detail::from<T>(result);
    }
  }
  template <class... T>
  void put(std::tuple<T...> results) {
    std::apply([&](auto&... result) { (put(result), ...); }, results);
  }

  void check_count(uint64_t registered, const char* what) const {
    STD_TORCH_CHECK(count_ == registered, "spherenet_fast: the schema has ", registered, " ", what,
                    ", the function that implements it ", count_);
  }

 private:
  StableIValue* first_;
  uint64_t count_ = 0;
};

template <auto function>
struct Box;
template <class Result, class... Parameter, Result (*function)(Parameter...)>
struct Box<function> {
  static void call(StableIValue* stack, uint64_t num_arguments, uint64_t num_results) {
    Stack arguments(stack), results(stack);
    const std::tuple<std::decay_t<Parameter>...> taken{arguments.take<std::decay_t<Parameter>>()...};
    arguments.check_count(num_arguments, "arguments");
    results.put(std::apply(function, taken));
    results.check_count(num_results, "results");
  }
};
#define SN_BOX(function) Box<&function>::call

// The same group with contiguous tensors.
template <class Group>
Group dense_fields(Group group) {
  group.fields([](auto&... tensor) { ((tensor = dense(tensor)), ...); });
  return group;
}

}  // namespace spherenet::ops
