// The requests of proto/api.proto, answered from Operations.
#pragma once

#include <memory>

#include "cp/api/operations.h"

namespace grpc {
class Service;
}

namespace lb::cp {

enum class Access : unsigned char {
  admin,  // everything
  view,   // what changes nothing
};

// `operations` outlives the service.
std::unique_ptr<grpc::Service> make_service(Operations& operations, Access access);

}  // namespace lb::cp
