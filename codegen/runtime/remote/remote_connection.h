/*!
 * \file remote_connection.h
 * \brief A connection to a server of TVM's RPC whose calls end in time, answered or not.
 */
#ifndef AHCQ_REMOTE_CONNECTION_H_
#define AHCQ_REMOTE_CONNECTION_H_

#include <cstdint>
#include <memory>
#include <string>

#include "remote_protocol.h"

namespace ahcq {
namespace remote {

/*!
 * \brief Calls `ahcq.remote.call` of a server, from a thread of its own.
 *
 * TVM's RPC waits for an answer for ever. Here the caller waits a limited time; if nothing came by then, the thread is
 * left to its fate and the connection refuses everything that follows.
 */
class Connection {
 public:
  /*! \throws DeviceError if no server answers within `seconds`, or not one of ours. */
  Connection(const std::string& host, int port, double seconds);
  ~Connection() { Close(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /*!
   * \brief What the server replies.
   * \param seconds How long to wait for it.
   * \throws DeviceError with the server's reason, or that the connection is lost.
   */
  std::string Call(int64_t device, Operation operation, int64_t first, int64_t second, const std::string& data,
                   double seconds);

 private:
  struct Shared;
  void Close();
  std::string Perform(double seconds);

  const std::string place_;
  std::shared_ptr<Shared> shared_;  // with the thread, which may outlive this object
};

}  // namespace remote
}  // namespace ahcq

#endif  // AHCQ_REMOTE_CONNECTION_H_
