# The target fkdx_jpeg: the pinned libjpeg-turbo, compiled in with hidden symbols, else the system's.
include(ExternalProject)
include(CheckCXXSourceCompiles)
include(${CMAKE_CURRENT_LIST_DIR}/libjpeg_source.cmake)
set(FKDX_LIBJPEG "auto" CACHE STRING "auto | bundled | system")
if(NOT FKDX_LIBJPEG MATCHES "^(auto|bundled|system)$")
  message(FATAL_ERROR "FKDX_LIBJPEG: got ${FKDX_LIBJPEG}, expected auto, bundled or system")
endif()
add_library(fkdx_jpeg INTERFACE)

function(libjpeg_bundle)
  set(folder ${CMAKE_BINARY_DIR}/libjpeg)
  ExternalProject_Add(libjpeg
    PREFIX ${folder}
    URL ${FKDX_LIBJPEG_ARCHIVE}
    DOWNLOAD_EXTRACT_TIMESTAMP TRUE
    SOURCE_DIR ${folder}/source
    BINARY_DIR ${folder}/build
    CMAKE_ARGS
      -DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE} -DCMAKE_POSITION_INDEPENDENT_CODE=ON
      -DCMAKE_C_FLAGS=-fvisibility=hidden -DCMAKE_OSX_ARCHITECTURES=${CMAKE_OSX_ARCHITECTURES}
      -DCMAKE_OSX_DEPLOYMENT_TARGET=${CMAKE_OSX_DEPLOYMENT_TARGET}
      -DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF -DWITH_TOOLS=OFF -DWITH_TESTS=OFF -DREQUIRE_SIMD=OFF
    BUILD_COMMAND ${CMAKE_COMMAND} --build <BINARY_DIR> --target jpeg-static
    BUILD_BYPRODUCTS ${folder}/build/libjpeg.a
    INSTALL_COMMAND ""
    LOG_DOWNLOAD TRUE LOG_CONFIGURE TRUE LOG_BUILD TRUE LOG_OUTPUT_ON_FAILURE TRUE)
  add_dependencies(fkdx_jpeg libjpeg)
  target_include_directories(fkdx_jpeg SYSTEM INTERFACE ${folder}/source/src ${folder}/build)
  target_link_libraries(fkdx_jpeg INTERFACE ${folder}/build/libjpeg.a)
  string(REGEX REPLACE "\\.([0-9])$" ".00\\1" number ${FKDX_LIBJPEG_VERSION})  # 3.2.0 is 3002000
  string(REGEX REPLACE "\\.([0-9])\\." "00\\1" number ${number})
  target_compile_definitions(fkdx_jpeg INTERFACE FKDX_BUNDLED_JPEG=${number})
endfunction()

function(libjpeg_of_system)
  if(NOT JPEG_FOUND)
    message(FATAL_ERROR "fkdx needs libjpeg-turbo, but ${libjpeg_why}, and the headers of the system's library are missing: "
      "apt-get install libjpeg62-turbo-dev (Debian), libjpeg-turbo8-dev (Ubuntu), libjpeg-turbo-devel (Fedora), or set "
      "CMAKE_PREFIX_PATH to its folder")
  endif()
  set(CMAKE_REQUIRED_LIBRARIES JPEG::JPEG)
  check_cxx_source_compiles("#include <cstdio>
#include <jpeglib.h>
int main() { jpeg_decompress_struct d{}; JDIMENSION x = 0, w = 1; jpeg_crop_scanline(&d, &x, &w);
  return LIBJPEG_TURBO_VERSION_NUMBER < 1005000 || JCS_EXTENSIONS != 1; }" FKDX_JPEG_IS_TURBO)
  if(NOT FKDX_JPEG_IS_TURBO)
    message(FATAL_ERROR "fkdx needs libjpeg-turbo >= 1.5; the libjpeg found in ${JPEG_INCLUDE_DIRS} is another one")
  endif()
  target_link_libraries(fkdx_jpeg INTERFACE JPEG::JPEG)
endfunction()

set(libjpeg_why "FKDX_LIBJPEG=system asks for the system's")
if(NOT FKDX_LIBJPEG STREQUAL "system")
  libjpeg_find_source()
  set(libjpeg_why "its source, ${libjpeg_url}, could not be downloaded (FKDX_LIBJPEG_SOURCE=PATH gives it)")
endif()
find_package(JPEG QUIET)
set(libjpeg_kind "bundled")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND FKDX_LIBJPEG_ARCHIVE)
  find_program(FKDX_NASM NAMES nasm yasm)
  if(NOT FKDX_NASM)
    message(WARNING "no nasm or yasm: the bundled libjpeg-turbo would be built without SIMD and be slow; install it with: "
      "apt-get install nasm, or dnf install nasm")
    if(JPEG_FOUND AND NOT FKDX_LIBJPEG STREQUAL "bundled")
      set(libjpeg_kind "system")
      set(libjpeg_why "no nasm or yasm is installed")
    endif()
  endif()
endif()
if(NOT FKDX_LIBJPEG_ARCHIVE)
  if(FKDX_LIBJPEG STREQUAL "bundled")
    message(FATAL_ERROR "FKDX_LIBJPEG=bundled: its source could not be downloaded; give its path as "
      "FKDX_LIBJPEG_SOURCE, from ${libjpeg_url}")
  endif()
  set(libjpeg_kind "system")
endif()
if(libjpeg_kind STREQUAL "bundled")
  message(STATUS "libjpeg-turbo: ${FKDX_LIBJPEG_VERSION}, compiled in, from ${FKDX_LIBJPEG_ARCHIVE}")
  libjpeg_bundle()
else()
  message(STATUS "libjpeg-turbo: the system's (${libjpeg_why})")
  libjpeg_of_system()
endif()
