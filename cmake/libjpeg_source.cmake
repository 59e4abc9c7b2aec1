# Finds the source archive of the pinned libjpeg-turbo and checks it. Also a script that does this alone:
#   cmake -P cmake/libjpeg_source.cmake
cmake_minimum_required(VERSION 3.22)  # a script has no policies of its own
set(FKDX_LIBJPEG_VERSION 3.2.0)
# The archive of its tag, with the bytes that GitHub and Linux distributions give it; in libjpeg-turbo's repository:
#   git archive --prefix=libjpeg-turbo-3.2.0/ 3.2.0 | gzip -n
set(FKDX_LIBJPEG_SHA256 980dd81f425082aa6d7c9e47fef27554ce7a9ffc8e2f6e863b97d263c5c50858)
set(libjpeg_name libjpeg-turbo-${FKDX_LIBJPEG_VERSION}.tar.gz)
set(libjpeg_address https://github.com/libjpeg-turbo/libjpeg-turbo/archive/refs/tags/${FKDX_LIBJPEG_VERSION}.tar.gz)
get_filename_component(libjpeg_kept ${CMAKE_CURRENT_LIST_DIR}/../third_party/${libjpeg_name} ABSOLUTE)

# Sets FKDX_LIBJPEG_ARCHIVE: the path of the archive, or "" where it was taken out of third_party/.
function(libjpeg_find_source)
  set(archive ${libjpeg_kept})
  if(DEFINED ENV{FKDX_LIBJPEG_SOURCE})
    set(archive $ENV{FKDX_LIBJPEG_SOURCE})
  elseif(NOT EXISTS ${archive})
    set(FKDX_LIBJPEG_ARCHIVE "" PARENT_SCOPE)
    return()
  endif()
  set(sum "none")
  if(EXISTS ${archive} AND NOT IS_DIRECTORY ${archive})
    file(SHA256 ${archive} sum)
  endif()
  if(NOT sum STREQUAL FKDX_LIBJPEG_SHA256)
    message(FATAL_ERROR "the source of libjpeg-turbo: got ${archive} with SHA-256 ${sum}, expected ${libjpeg_name} with "
      "${FKDX_LIBJPEG_SHA256}; download it from ${libjpeg_address} and give its path as FKDX_LIBJPEG_SOURCE")
  endif()
  set(FKDX_LIBJPEG_ARCHIVE ${archive} PARENT_SCOPE)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  libjpeg_find_source()
  message(STATUS "libjpeg-turbo: ${FKDX_LIBJPEG_ARCHIVE}")
endif()
